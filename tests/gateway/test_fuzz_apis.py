"""Rubbish from endpoints of the other APIs: nothing escapes, every opening is closed once, nobody pays too much."""

import asyncio
import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.keeper import events, response, sse, vault_in
from gateway.test_anthropic_endpoint import begins, block, ends, message, says, told
from gateway.test_completions import choice, completed
from gateway.test_fuzz import ANSWER_PARTS, HEADS, Rig, answered, fuzz
from gateway_bench import bench
from stand_in_office import catalog, endpoint
from supplier import DONE, STREAM_HEAD, chunk, usage
from supplier import answer as http_answer
from tokenworks.core.snapshot import Api

APIS: tuple[Api, ...] = ("chat", "completions", "embeddings", "moderations")
# Path, dialect of the endpoint, and what is asked there.
ASKED: list[tuple[str, str, dict[str, Any]]] = [
    ("/v1/completions", "openai", {"prompt": "Once", "echo": True, "n": 2}),
    ("/v1/completions", "openai", {"prompt": ["Once", "upon"], "stream_options": {"include_usage": True}}),
    ("/v1/responses", "openai", {"input": "Say hello."}),
    ("/v1/embeddings", "openai", {"input": "Say hello.", "messages": None}),
    ("/v1/moderations", "openai", {"input": "Say hello."}),
    ("/v1/chat/completions", "anthropic", {"stream_options": {"include_usage": True}}),
    ("/v1/messages", "anthropic", {"thinking": {"type": "enabled", "budget_tokens": 1_024}, "max_tokens": 2_000}),
    ("/v1/responses", "anthropic", {"input": "Say hello."}),
    ("/v1/responses", "responses", {"input": "Say hello.", "store": True}),
]


def data(body: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(body).encode()


KEPT_KINDS = ["response.created", "response.completed", "response.output_item.done", "x.delta", "error", ""]
PARTS = [
    *(*begins(), *says("a", "b"), *ends(), ends("max_tokens")[0], DONE),
    *block(
        1, {"type": "tool_use", "id": "t", "name": "f", "input": {}}, {"type": "input_json_delta", "partial_json": "{"}
    ),
    *block(2, {"type": "thinking", "thinking": "x"}, {"type": "signature_delta", "signature": "s"}),
    *(
        told("message_delta", usage={"output_tokens": -1}),
        told("message_delta", delta={}, usage={"output_tokens": "x"}),
    ),
    *(told("content_block_start", index="x"), told("content_block_delta", index=1 << 70, delta={"type": 3})),
    *(told("error", error={"message": "Busy."}), told("message_start", message={"usage": 3}), b'data: {"type":1}\n\n'),
    b'data: {"type":"content_block_delta","delta":{"type":"text_delta","text":"\xc3"}}\n\n',
    *(data(completed(choice("Once"))), data(completed(choice("On", 1))), data(completed(choice("x", 1 << 70)))),
    *(data(completed({"index": "x", "text": 3})), data({"choices": [{"text": "\ud800"}]}), data({"choices": [3]})),
    *(data(completed(used=usage(2, 2))), data({"choices": None}), data({"choices": [{"index": None, "text": None}]})),
    data({"choices": [{"delta": {"tool_calls": [{"index": -1, "function": {"arguments": {}}}]}}]}),
    *ANSWER_PARTS,
    *sse(*events("resp_own", ["a", "b"]), *events("resp_own", ["a"], None), {"type": "response.failed", "response": 3}),
    *sse(*({"type": kind, "delta": 3, "item": {"id": 3}, "response": {"output": 3}} for kind in KEPT_KINDS)),
]
BODIES = [
    *(
        message("a"),
        message(stop="tool_use"),
        completed(choice("Once"), used=usage(2, 2)),
        {"content": [{"type": "x"}]},
    ),
    *({"data": [1], "usage": {"prompt_tokens": 1 << 70}}, {"results": [1], "usage": {}}, {"data": [], "usage": 3}),
    *(completed({"index": None}), completed({"index": "x", "text": "y"}), {"choices": [{}], "usage": 3}, [], 3),
    *(response("resp_own"), response("r", used={"input_tokens": -1, "output_tokens": 1}), response("r", output=[3])),
]
HEADS_TOO = [*HEADS, *(http_answer(200, json.dumps(body).encode()) for body in BODIES)]
streams = st.tuples(
    st.sampled_from([STREAM_HEAD, *HEADS_TOO]),
    st.lists(st.sampled_from(PARTS) | st.binary(max_size=8), max_size=12),
    st.sampled_from(["chunked", "bare", "torn"]),
    st.integers(1, 400),
)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Generator[Rig]:
    """The rig of this file."""
    folder: Path = tmp_path_factory.mktemp("fuzz-apis")
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        gateway = runner.run(
            stack.enter_async_context(bench(folder, balance=1 << 50, endpoint_rest_ms=1, vault=vault_in(folder)))
        )
        yield Rig(runner, gateway)
        runner.run(stack.aclose())


@fuzz
@given(streams, st.booleans(), st.sampled_from(ASKED), st.sampled_from([0, 0, 1, 200, 400]))
def test_answers_of_any_bytes(
    rig: Rig, stream: tuple[bytes, list[bytes], str, int], is_stream: bool, asked: tuple[str, str, Any], leaves: int
) -> None:
    path, dialect, fields = asked
    known = endpoint(rig.gateway.supplier.url, dialect=dialect)
    rig.gateway.use(catalog(known, apis=APIS, thinking="budget", output_max=4_000))
    head, parts, framing, size = stream
    body = b"".join(map(chunk, filter(None, parts))) if framing != "bare" else b"".join(parts)
    sent = head + body + (b"0\r\n\r\n" if framing == "chunked" else b"")
    sent = sent[: -len(sent) // 3] if framing == "torn" else sent
    streams_here = is_stream and path not in {"/v1/embeddings", "/v1/moderations"}
    rig.runner.run(answered(rig.gateway, sent, size, is_stream=streams_here, path=path, leaves_after=leaves, **fields))
    rig.check()
