"""Responses that endpoints keep: anything a customer or an endpoint writes is read or refused, and ids stay sealed."""

import contextlib
import json
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tokenworks.base.aliases import Aliases
from tokenworks.base.vault import Vault
from tokenworks.core.refusals import Refusal
from tokenworks.core.usage import Tokens
from tokenworks.dialects import kept_answer, kept_request, reading
from tokenworks.dialects.kept_ids import KeptIds, Place, Telling
from tokenworks.dialects.kept_request import Read
from tokenworks.dialects.kept_stream import KeptStream
from tokenworks.dialects.sse import Splitter


class _Known(Vault):
    """A vault with a key that is always the same."""

    def derived(self, purpose: str) -> list[bytes]:
        return [purpose.encode().ljust(64, b"k")]


IDS = KeptIds(Aliases(_Known(Path("nowhere")), "responses"), "ba_1")
TOLD = IDS.told("item", Place("ep_1", "msg_secret"))
NAMES = ["type", "role", "content", "text", "id", "item", "item_id", "response", "output", "usage", "delta", "data"]
NAMES += ["image_url", "summary", "call_id", "name", "arguments", "output_index", "sequence_number", "message", "error"]
WORDS = ["message", "item_reference", "reasoning", "function_call", "user", "input_text", "input_image", TOLD]
WORDS += ["response.created", "response.completed", "response.failed", "response.output_item.done", "x.delta", "a\nb"]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=10,
)
objects = st.dictionaries(st.sampled_from(NAMES), values, max_size=5)


@given(objects, values, st.sampled_from([{"store": True}, {"previous_response_id": "x"}, {"store": 1}]))
def test_any_request_is_read_or_refused(fields: dict[str, Any], given_input: Any, kept: dict[str, Any]) -> None:
    body = json.dumps({"model": "m", "input": given_input} | fields | kept).encode()
    assert isinstance(kept_request.wants(body), str)
    assert isinstance(kept_request.parse(body, IDS), Read | Refusal)


@given(st.lists(st.fixed_dictionaries({"role": st.just("user"), "content": values}), max_size=3))
def test_any_message_is_read_or_refused(messages: list[dict[str, Any]]) -> None:
    body = json.dumps({"model": "m", "input": messages, "store": True}).encode()
    assert isinstance(kept_request.parse(body, IDS), Read | Refusal)


@given(objects)
def test_any_answer_is_told_or_is_none(fields: dict[str, Any]) -> None:
    telling = Telling(IDS, "ep_1", "m")
    told = telling.listed(telling.response(fields))
    assert msgspec.json.encode(told)
    with contextlib.suppress(*reading.UNREADABLE):
        reading.whole_answer(kept_answer.as_chat(json.dumps({"id": "r", "status": "completed"} | fields).encode()))


@given(st.lists(objects, max_size=5), st.integers(1, 64))
def test_any_stream_is_told_to_its_end(events: list[dict[str, Any]], size: int) -> None:
    sent = b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in events)
    stream = KeptStream(Splitter(1 << 20), Telling(IDS, "ep_1", "m"))
    told = [each for at in range(0, len(sent), size) for each in stream.feed(sent[at : at + size])] + stream.finish()
    for each in told:
        assert not each.raw or each.raw.startswith((b"data: ", b"event: ", b":"))
        assert each.raw.count(b"\n\n") == (1 if each.raw else 0)
    stream.passed(b"".join(each.raw for each in told))
    assert stream.last(b"data: [DONE]\n\n", Tokens(1)).endswith(b"\n\n")


@given(st.text(max_size=30), st.sampled_from(["response", "item"]))
def test_an_id_is_told_and_opened(own_id: str, kind: Any) -> None:
    place = Place("ep_1", own_id)
    assert IDS.opened(kind, IDS.told(kind, place)) == place
    assert IDS.opened("item" if kind == "response" else "response", IDS.told(kind, place)) is None
    assert IDS.opened(kind, own_id) is None
