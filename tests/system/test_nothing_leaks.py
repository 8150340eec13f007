"""What customers say and what opens doors is nowhere but where it belongs: no log, no journal, no table, no bus has it.

The system logs everything it can, and is told prompts and keys in every way that could make it speak of them.
"""

import json
from collections.abc import Generator
from pathlib import Path

import httpx2
import pytest

from supplier import Supplier, raw, status, stream, supplier, usage, whole
from system.conftest import made, until
from system.test_operation import serve_from
from tokenworks.app.client import OfficeClient, address
from tokenworks.app.spawned import Spawned, spawned, throwaway
from tokenworks.base.config import Settings

PROMPT = "planted-prompt-7f3a9c"
ANSWER = "planted-answer-51b2de"
KEY = "sk-tw-planted-key-that-nobody-has"
SUPPLIER_KEY = "planted-supplier-key-88d1"


@pytest.fixture
def talkative(scratch: Path) -> Generator[Spawned]:
    """A system of its own that logs whatever it would ever log."""
    wanted = throwaway(scratch / "talkative", Settings(log_level="debug", log_format="json"))
    with spawned(wanted) as running:
        yield running


def files_with(data: Path, *planted: str) -> dict[str, list[str]]:
    """Which of these are in which file of the data folder."""
    found: dict[str, list[str]] = {}
    for file in data.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            here = [text for text in planted if text.encode() in content]
            if here:
                found[str(file.relative_to(data))] = here
    return found


async def served_with(key: str, http: httpx2.AsyncClient, vendor: Supplier, model: str, secret: str) -> None:
    """Ask until the worker has the catalog in which the endpoint has this key."""
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    while not any(call.headers.get("authorization") == f"Bearer {key}" for call in vendor.calls):
        await http.post("/v1/chat/completions", json=body, headers={"authorization": f"Bearer {secret}"})


async def said_in_every_way(http: httpx2.AsyncClient, vendor: Supplier, model: str, secret: str) -> None:
    """Served, streamed, refused, broken, malformed: with the prompt in it, and the key where keys are."""
    good = {"authorization": f"Bearer {secret}"}
    body = {"model": model, "messages": [{"role": "user", "content": PROMPT}]}
    echo = {"error": {"message": f"cannot say {PROMPT}", "type": "invalid_request_error"}}
    vendor.script(
        whole(ANSWER, usage(10, 5)),
        stream([ANSWER], usage(10, 5)),
        status(400, echo),
        status(500, echo),
        raw(f"HTTP/1.1 {ANSWER} {PROMPT}\r\n\r\n".encode()),
        stream([ANSWER], usage(10, 5), done=False),
    )
    for more in ({}, {"stream": True}, {}, {}, {}, {"stream": True}):
        await http.post("/v1/chat/completions", json=body | more, headers=good)
    await http.post("/v1/messages", json=body | {"max_tokens": 5}, headers={"x-api-key": secret})
    await http.post("/v1/chat/completions", content=b"{" + json.dumps(body).encode(), headers=good)
    await http.post("/v1/chat/completions", json=body | {"temperature": PROMPT, "n": PROMPT}, headers=good)
    await http.post(f"/v1/{PROMPT}?key={KEY}", json=body, headers=good)
    for headers in ({"authorization": f"Bearer {KEY}"}, {"authorization": KEY}, {"x-api-key": KEY}):
        await http.post("/v1/chat/completions", json=body, headers=headers)


async def test_prompts_answers_and_keys_are_written_nowhere(talkative: Spawned) -> None:
    settings = Settings(data_dir=str(talkative.data))
    async with supplier() as vendor, httpx2.AsyncClient(base_url=talkative.addresses["gateway"]) as http:
        with OfficeClient(address(settings)) as office:
            model = serve_from(office, vendor)
            office.patch(f"/endpoints/{office.get('/endpoints')['items'][-1]['id']}", {"api_key": SUPPLIER_KEY})
            person = made(office, "/customers", name="Chen Jie", phone="+8613912345642")
            secret = made(office, "/keys", customer=person["id"], name="test")["secret"]
            made(office, "/orders", customer=person["id"], offer="ct-personal-10m")
            await served_with(SUPPLIER_KEY, http, vendor, model, secret)
            await said_in_every_way(http, vendor, model, secret)
            posted = until(lambda: office.get("/usage", customer=person["id"])["items"])
            assert posted
    log = talkative.data / "log" / "up.log"
    assert "debug" in log.read_text() or "info" in log.read_text()
    planted = (PROMPT, ANSWER, KEY, SUPPLIER_KEY, secret)
    assert files_with(talkative.data, *planted) == {}
    # What is looked for would be found.
    (talkative.data / "planted").write_text(PROMPT)
    assert files_with(talkative.data, *planted) == {"planted": [PROMPT]}
