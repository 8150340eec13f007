"""The embedded engine as the process it is: the real model behind a key, and an end when asked."""

import signal
from collections.abc import AsyncGenerator

import httpx2
import pytest

from tokenworks.app import ports
from tokenworks.app.children import Child, PythonChild
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault
from tokenworks.plant import engine

KEY = {"authorization": "Bearer key"}


@pytest.fixture(scope="module")
async def running() -> AsyncGenerator[tuple[Child, str]]:
    port = await ports.free_port(0, "TOKENWORKS_ENGINE_PORT")
    settings = Settings(engine_port=port, engine_api_key="key")
    child = Child(PythonChild("engine", "tokenworks.plant.engine", settings), settings)
    await child.start()
    yield child, f"http://127.0.0.1:{port}"
    await child.stop()


async def test_it_answers_with_its_model_and_reports_usage(running: tuple[Child, str]) -> None:
    body = {"model": engine.MODEL, "max_tokens": 4, "messages": [{"role": "user", "content": "Say hello."}]}
    async with httpx2.AsyncClient(base_url=running[1], headers=KEY, timeout=30) as client:
        models = (await client.get("/v1/models")).json()
        answer = (await client.post("/v1/chat/completions", json=body)).json()
    assert [model["id"] for model in models["data"]] == [engine.MODEL]
    assert models["data"][0]["meta"]["n_ctx"] == engine.CONTEXT_TOKENS
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] <= 4
    assert answer["usage"]["prompt_tokens"] > 4


async def test_it_asks_for_its_key(running: tuple[Child, str]) -> None:
    async with httpx2.AsyncClient(base_url=running[1]) as client:
        refused = await client.post("/v1/chat/completions", json={}, headers={"authorization": "Bearer other"})
    assert refused.status_code == 401


async def test_a_port_that_is_taken_ends_its_start(running: tuple[Child, str]) -> None:
    taken = Settings(engine_port=int(running[1].rpartition(":")[2]), log_level="error")
    with pytest.raises(StartFault, match=r"the engine stopped while it was starting \(exit code 1\)"):
        await Child(PythonChild("engine", "tokenworks.plant.engine", taken), taken).start()


async def test_it_ends_in_good_order_when_asked() -> None:
    settings = Settings(engine_port=await ports.free_port(0, ""))
    service = PythonChild("engine", "tokenworks.plant.engine", settings)
    process = await service.spawn()
    await service.ready(process)
    process.send_signal(signal.SIGTERM)
    assert await process.wait() == 0
