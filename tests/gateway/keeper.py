"""A scripted supplier that keeps responses: it answers by their ids, and can be told to answer oddly."""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import openai

from gateway_bench import Bench, bench
from stand_in_office import catalog, endpoint
from supplier import STREAM_HEAD, Act, Call, answer, chunk
from tokenworks.base.vault import Vault
from tokenworks.core.usage import Tokens

OTHER_SECRET = "sk-tw-other"
ASK: dict[str, Any] = {"model": "m", "input": "Say hello.", "max_output_tokens": 20, "store": True}

USED: dict[str, Any] = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 4},
    "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2},
    "total_tokens": 17,
}
# The same in the classes that are charged.
TOKENS = Tokens(8, cached_input=4, output=3, reasoning=2)


def response(own_id: str, text: str = "Hello there.", used: Any = USED, **more: Any) -> dict[str, Any]:
    """A whole response, as OpenAI's API has it."""
    said = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    item = {"id": f"msg_of_{own_id}", "type": "message", "status": "completed", "role": "assistant", "content": [said]}
    about = {"id": own_id, "object": "response", "created_at": 1, "status": "completed", "model": "up", "error": None}
    rest = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "incomplete_details": None}
    return about | rest | {"output": [item], "store": True, "previous_response_id": None, "usage": used} | more


def events(own_id: str, texts: Sequence[str], used: Any = USED, **more: Any) -> list[dict[str, Any]]:
    """The events of its stream."""
    whole = response(own_id, "".join(texts), used, **more)
    begun = whole | {"status": "in_progress", "output": [], "usage": None}
    item = whole["output"][0]
    at = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    part = item["content"][0]
    told: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.in_progress", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": item | {"content": []}},
        {"type": "response.content_part.added", **at, "part": part | {"text": ""}},
        *({"type": "response.output_text.delta", **at, "delta": text, "logprobs": []} for text in texts),
        {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": []},
        {"type": "response.content_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": f"response.{whole['status']}", "response": whole},
    ]
    return [{**each, "sequence_number": number} for number, each in enumerate(told)]


def sse(*told: dict[str, Any]) -> list[bytes]:
    """Events as they go over the wire."""
    return [b"event: %b\ndata: %b\n\n" % (each["type"].encode(), json.dumps(each).encode()) for each in told]


def streaming(*told: bytes, ends: bool = True) -> Act:
    """A stream of these bytes; without its end the connection breaks off."""

    async def act(call: Call) -> bool:
        await call.send(STREAM_HEAD + b"".join(chunk(each) for each in told) + (b"0\r\n\r\n" if ends else b""))
        return ends

    return act


class Keeper:
    """An act that keeps what it answers: `kept` by id. What it is asked for and does not have is 404."""

    def __init__(self, name: str = "a") -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self._name = name

    async def __call__(self, call: Call) -> bool:
        """Answer one call."""
        path = call.path.partition("?")[0].split("/")[2:]
        if path[0] != "responses":
            raise AssertionError(call.path)
        if len(path) == 1:
            return await self._create(call)
        found = self.kept.get(path[1])
        if found is None:
            return await _answer(call, 404, {"error": {"message": f"Response with id '{path[1]}' not found."}})
        if path[2:] == ["input_items"]:
            items = [{"id": f"msg_in_{path[1]}", "type": "message", "role": "user", "content": []}]
            ends = {"first_id": items[0]["id"], "last_id": items[0]["id"], "has_more": False}
            return await _answer(call, 200, {"object": "list", "data": items} | ends)
        if path[2:] == ["cancel"]:
            text = f"Cannot cancel the synchronous response {path[1]}."
            return await _answer(call, 400, {"error": {"message": text, "type": "invalid_request_error"}})
        if call.method == "DELETE":
            del self.kept[path[1]]
            return await _answer(call, 200, {"id": path[1], "object": "response.deleted", "deleted": True})
        return await _answer(call, 200, found)

    async def _create(self, call: Call) -> bool:
        own_id = f"resp_own_{self._name}_{len(self.kept)}"
        previous = call.body.get("previous_response_id")
        if previous and previous not in self.kept:
            return await _answer(call, 400, {"error": {"message": f"Previous response {previous} not found."}})
        told = response(own_id, previous_response_id=previous)
        if call.body["store"]:
            self.kept[own_id] = told
        if call.body.get("stream"):
            return await streaming(*sse(*events(own_id, ["Hello ", "there."], previous_response_id=previous)))(call)
        return await _answer(call, 200, told)


async def _answer(call: Call, status: int, body: dict[str, Any]) -> bool:
    await call.send(answer(status, json.dumps(body).encode()))
    return True


def vault_in(folder: Path) -> Vault:
    """Master keys."""
    made = Vault(folder / "master-keys")
    made.ready()
    return made


@asynccontextmanager
async def keeping(folder: Path) -> AsyncGenerator[Bench]:
    """A gateway with two suppliers that could keep responses, of which the first does, and two customers."""
    async with bench(folder, vault=vault_in(folder), suppliers=2) as running:
        know(running)
        for name, each in zip("ab", running.suppliers, strict=True):
            each.default = Keeper(name)
        running.office.add_key(OTHER_SECRET, "ba_2", key_id="key_2")
        yield running


def know(gateway: Bench, numbers: Sequence[int] = (0,), **about: Any) -> None:
    """These suppliers keep responses."""
    used = (endpoint(gateway.suppliers[n].url, f"ep_{n}", dialect="responses") for n in numbers)
    gateway.use(catalog(*used, **about))


def other(gateway: Bench) -> openai.AsyncOpenAI:
    """Another customer."""
    return openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=OTHER_SECRET, max_retries=0)


async def create(gateway: Bench, **fields: Any) -> httpx2.Response:
    """One response that is to be kept."""
    async with gateway.client as client:
        return await client.post("/v1/responses", json=ASK | fields)


def told(answered: httpx2.Response) -> list[dict[str, Any]]:
    """The events of a stream."""
    return [json.loads(line[6:]) for line in answered.text.split("\n") if line.startswith("data: ")]
