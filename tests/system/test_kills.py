"""What customers notice when a part below the gateway is killed: as little as their workers' slices and keys allow."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from system.conftest import Customer, until
from tokenworks.app import claim, killing
from tokenworks.app.client import OfficeClient
from tokenworks.app.reach import OfficeRefused
from tokenworks.app.spawned import Spawned

PACKAGE = "ct-personal-10m"
ASK: dict[str, Any] = {
    "model": "smollm2-135m",
    "messages": [{"role": "user", "content": "Hi"}],
    "max_tokens": 4,
}
# The live page asks as the demonstration customer, whose first package has ten million tokens.
PROMPT = "Write a long story about a river, a town and a waterworks."


def pid_of(system: Spawned, part: str) -> int:
    running = claim.running_on(system.data)
    return running.pids[part] if running else 0


def killed(system: Spawned, part: str) -> int:
    """SIGKILL to a part of the system; which process it was."""
    pid = pid_of(system, part)
    os.kill(pid, signal.SIGKILL)
    return pid


async def spent_on(customer: Customer, times: int, retries: int = 0) -> int:
    client = customer.client.with_options(max_retries=retries)
    answers = [await client.chat.completions.create(**ASK) for _ in range(times)]
    return sum(answer.usage.total_tokens for answer in answers if answer.usage)


def reads(office: OfficeClient, path: str) -> dict[str, Any] | None:
    """An answer of the office, or nothing while its database is away."""
    try:
        return office.get(path)
    except OfficeRefused as refusal:
        if refusal.status < 500:
            raise
        return None


def failing(office: OfficeClient) -> list[dict[str, Any]]:
    report = until(lambda: reads(office, "/ledger/verify"))
    return [check for check in report["checks"] if not check["ok"]]


@pytest.mark.parametrize("part", ["nats", "postgres"])
async def test_customers_are_served_while_it_is_away_and_everything_is_posted_after(
    system: Spawned, customer: Customer, office: OfficeClient, part: str
) -> None:
    customer.buy(PACKAGE)
    # Slices follow the pace: after some requests on a connection its worker holds one that lasts for several more.
    spent = await spent_on(customer, 6)
    dead = killed(system, part)
    spent += await spent_on(customer, 1)
    await asyncio.to_thread(until, lambda: pid_of(system, part) not in {0, dead})
    await asyncio.to_thread(until, lambda: reads(office, "/customers"))
    # Balance and posting need what was killed: these come through although it was away a moment ago.
    spent += await spent_on(customer, 2, retries=4)
    await asyncio.to_thread(until, lambda: customer.left() == 10_000_000 - spent)
    assert await asyncio.to_thread(failing, office) == []


async def test_a_worker_killed_from_the_live_page_leaves_an_orphan_closed_at_its_checkpoint(
    system: Spawned, office: OfficeClient
) -> None:
    token = (system.data / "secrets" / "admin-token").read_text().strip()
    headers = {"authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(base_url=system.addresses["office"], headers=headers, timeout=30) as http,
        http.stream("POST", "/live/chat", json={"prompt": PROMPT}) as page,
    ):
        lines = page.aiter_lines()
        admitted = json.loads(await _data(lines))
        for _ in range(100):
            await _data(lines)
        answer = await http.post("/live/kill", json={"worker": admitted["worker"]})
        assert answer.json()["worker"] == admitted["worker"]
        rest = [line async for line in lines]
    assert "event: broken" in rest
    found = await asyncio.to_thread(until, lambda: office.get("/usage", request=admitted["request_id"])["items"])
    assert found[0]["ending"] == "orphaned"
    assert 64 <= found[0]["tokens"]["output"] <= 256
    assert await asyncio.to_thread(failing, office) == []


@pytest.mark.parametrize("name", ["office", "gw-77", "gw-", "", "postgres"])
def test_nothing_but_a_worker_of_this_system_can_be_killed(system: Spawned, name: str) -> None:
    assert killing.kill_worker(system.data, name) is None


async def _data(lines: AsyncIterator[str]) -> str:
    """The data of the next event."""
    async for line in lines:
        if line.startswith("data: "):
            return line.removeprefix("data: ")
    raise AssertionError("the stream ended")
