"""Server-sent events: whole events come out, whatever way the bytes were cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.dialects.sse import Event, EventTooLarge, Splitter

CASES: dict[bytes, list[bytes | None]] = {
    b"data: a\n\ndata: b\n\n": [b"a", b"b"],
    b"data: a\r\n\r\ndata: b\r\n\r\n": [b"a", b"b"],
    b"data: a\r\rdata: b\r\r": [b"a", b"b"],
    b"data:a\n\n": [b"a"],
    b"data:  a\n\n": [b" a"],
    b": keep-alive\n\ndata: a\n\n": [None, b"a"],
    b"event: x\nid: 1\ndata: a\ndata: b\n\n": [b"a\nb"],
    b"event: x\r\ndata: a\r\ndata\r\n\r\n": [b"a\n"],
    b"\n\n\ndata: a\n\n\n\n": [b"a"],
    b"database: no\n\n": [None],
    b"data: a\n\ndata: [DONE]": [b"a", b"[DONE]"],
    b"data: a\n": [b"a"],
    b"": [],
}


def split(pieces: list[bytes]) -> list[Event]:
    splitter = Splitter(1_000)
    return [event for piece in pieces for event in splitter.feed(piece)] + splitter.finish()


@pytest.mark.parametrize("data", CASES)
def test_events(data: bytes) -> None:
    assert [event.data for event in split([data])] == CASES[data]


@pytest.mark.parametrize("data", CASES)
def test_one_byte_at_a_time(data: bytes) -> None:
    assert split([data[place : place + 1] for place in range(len(data))]) == split([data])


_streams = st.lists(st.sampled_from([b"data: x", b"data:", b": c", b"id: 1", b"\n", b"\r\n", b"\r", b"y"])).map(
    b"".join
)


@given(_streams, st.lists(st.integers(0, 40)))
def test_any_cut_gives_the_same_events(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in pairwise(places)]
    assert split(pieces) == split([data])


def test_an_event_without_end_is_refused() -> None:
    splitter = Splitter(10)
    with pytest.raises(EventTooLarge):
        splitter.feed(b"data: 0123456789")
