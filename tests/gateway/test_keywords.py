"""The keyword list, and the screen over it: whatever the pieces, no listed phrase comes out, and all else does."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supplier import event
from tokenworks.base.config import Settings
from tokenworks.core.snapshot import Key
from tokenworks.dialects.sse import Event, Splitter
from tokenworks.gateway import keywords
from tokenworks.gateway.flow import Errands
from tokenworks.gateway.keywords import Keywords, KeywordsFault
from tokenworks.gateway.safety import Asker, Safety
from tokenworks.gateway.screen import Screen

LIST = Keywords(["bad word", "Worse", "坏话", "a b", "c++"])
FOUND = {
    "bad word": 0,
    "a BAD Word.": 2,
    "worse": 0,
    "worsening": -1,
    "unworse": -1,
    "is worse!": 3,
    "说坏话的": 1,
    "坏 话": -1,
    "c++": 0,
    "c++11": 0,
    "bad  word": -1,
    "İ worse": 2,
    "": -1,
}


@pytest.mark.parametrize("text", FOUND)
def test_where_a_phrase_is_found(text: str) -> None:
    assert LIST.find(keywords.plain(text), is_whole=True) == FOUND[text]


def test_a_word_at_the_end_may_go_on_and_is_held_until_it_is_seen() -> None:
    assert LIST.find("it is worse", is_whole=False) == -1
    assert LIST.settled("it is worse") == 6
    assert LIST.settled("it is worsen") == 12
    assert LIST.find("it is worse ", is_whole=False) == 6
    # The end of a Chinese phrase is its end.
    assert LIST.find("说坏话", is_whole=False) == 1


def test_a_file_of_words(tmp_path: Path) -> None:
    file = tmp_path / "words"
    file.write_text("# not these\n\n  Worse \n坏话\n", encoding="utf-8")
    found = keywords.read(str(file))
    assert [found.find(text, is_whole=True) for text in ("worse", "坏话", "# not these")] == [0, 0, -1]
    for bad in (tmp_path / "none", tmp_path):
        with pytest.raises(KeywordsFault, match="TOKENWORKS_SAFETY_KEYWORDS_FILE"):
            keywords.read(str(bad))


def test_an_empty_list_finds_nothing() -> None:
    assert Keywords(()).find("anything", is_whole=True) == -1
    assert Keywords(()).settled("anything") == 8


class Quiet:
    """An endpoint that is never held back."""

    def pause(self) -> None:
        raise AssertionError("nobody is asked")

    resume = pause


def screened(pieces: list[str], *, is_ended: bool) -> tuple[str, bool]:
    """What comes out of a screen for a stream in these pieces, and whether it was stopped."""
    safety = Safety(Settings(), Errands())
    safety.keywords = LIST
    screen = Screen(safety, Asker("r", "m", Key("k", "l", "c", "b")), None)
    events = [event({"content": piece}) for piece in pieces] + [event({}, "stop")] * is_ended
    out: list[Event] = []
    for number, raw in enumerate(events, 1):
        coroutine = screen.pass_on(
            Splitter(1 << 20).feed(raw),
            Quiet(),  # pyright: ignore[reportArgumentType]
            is_end=not is_ended and number == len(events),
        )
        with pytest.raises(StopIteration) as over:
            coroutine.send(None)
        out += over.value.value
        if screen.is_stopped:
            break
    said = [json.loads(each.data or b"{}")["choices"][0]["delta"].get("content", "") for each in out]
    return "".join(said), screen.is_stopped


pieces = st.lists(st.text(st.sampled_from("badworse 坏话c+.n"), min_size=1, max_size=4), max_size=30)


@given(pieces, st.booleans())
def test_however_a_text_is_cut_no_phrase_comes_out_and_all_else_does(parts: list[str], is_ended: bool) -> None:
    text = "".join(parts)
    said, is_stopped = screened(parts, is_ended=is_ended)
    found = LIST.find(text, is_whole=True)
    assert is_stopped == (found >= 0)
    assert text.startswith(said)
    assert LIST.find(said, is_whole=False) < 0
    if found < 0:
        assert said == text
    else:
        assert len(said) <= found


def test_what_may_become_a_phrase_is_held_back_and_nothing_more() -> None:
    safety = Safety(Settings(), Errands())
    safety.keywords = LIST
    screen = Screen(safety, Asker("r", "m", Key("k", "l", "c", "b")), None)
    passed: list[int] = []
    for piece in ("it is ", "a ", "bad ", "w", "ay"):
        coroutine = screen.pass_on(
            Splitter(1 << 20).feed(event({"content": piece})),
            Quiet(),  # pyright: ignore[reportArgumentType]
            is_end=False,
        )
        with pytest.raises(StopIteration) as over:
            coroutine.send(None)
        passed.append(len(over.value.value))
    # "a " may become "a b", but "a ba" cannot; "bad " and "bad w" may become "bad word".
    assert passed == [1, 0, 1, 0, 3]
