"""What an operator relies on: endpoints taken up while running, and books that hold when processes are killed."""

import asyncio
import os
import signal
from typing import Any

import httpx2

from supplier import Supplier, stream, stuck_stream, supplier, usage, whole
from system.conftest import Customer, made, until
from tokenworks.app import claim
from tokenworks.app.client import OfficeClient
from tokenworks.app.spawned import Spawned
from tokenworks.base import ids
from tokenworks.base.journal import list_journals, read_frames, split
from tokenworks.core import journal

PACKAGE = "ct-personal-10m"


def serve_from(office: OfficeClient, vendor: Supplier) -> str:
    """Put the scripted supplier into service for a model of its own; gives the model's id."""
    name = ids.new("model")
    made(office, "/suppliers", id=name, name="Vendor", currency="CNY")
    purchase = {"input": "2", "output": "4", "currency": "CNY"}
    model = {"id": name, "context_window": 4096, "output_max": 2048}
    made(office, "/endpoints", supplier=name, model=model, base_url=vendor.url, purchase=purchase)
    return name


def question(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "Hi"}], **more}


async def test_a_new_endpoint_serves_at_once_and_its_supplier_is_owed(customer: Customer, office: OfficeClient) -> None:
    customer.buy(PACKAGE)
    async with supplier() as vendor:
        model = serve_from(office, vendor)
        vendor.script(whole("Hello.", usage(10, 5)), stream(["He", "llo"], usage(10, 5)))
        while model not in [one.id async for one in customer.client.models.list()]:
            pass
        whole_answer = await customer.client.chat.completions.create(**question(model))
        assert whole_answer.choices[0].message.content == "Hello."
        chunks = [
            chunk async for chunk in await customer.client.chat.completions.create(**question(model, stream=True))
        ]
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello"
    until(lambda: customer.left() == 10_000_000 - 30)
    assert office.get(f"/suppliers/{model}")["payable"] == {"amount": "0.00008", "unit": "CNY"}


async def test_a_killed_worker_loses_and_doubles_nothing(
    system: Spawned, customer: Customer, office: OfficeClient
) -> None:
    customer.buy(PACKAGE)
    key = {"authorization": f"Bearer {customer.key['secret']}"}
    async with supplier() as vendor, httpx2.AsyncClient(base_url=system.addresses["gateway"], headers=key) as http:
        model = serve_from(office, vendor)
        while model not in [one.id async for one in customer.client.models.list()]:
            pass
        vendor.script(stuck_stream(["word "] * 100))
        async with http.stream("POST", "/v1/chat/completions", json=question(model, stream=True)) as answer:
            request_id = answer.headers["x-request-id"]
            await _read(answer, b"word", 100)
            until(lambda: _has_checkpoint(system, request_id))
            for pid in _workers(system):
                os.kill(pid, signal.SIGKILL)
    record = await asyncio.to_thread(customer.record, request_id)
    assert (record["ending"], record["basis"]) == ("orphaned", "counted")
    assert 64 <= record["tokens"]["output"] <= 100
    until(lambda: customer.left() == 10_000_000 - record["tokens"]["total"])
    report = office.get("/ledger/verify")
    assert [check for check in report["checks"] if not check["ok"]] == []


async def test_the_gateway_serves_while_the_office_is_dead(system: Spawned, customer: Customer) -> None:
    customer.buy(PACKAGE)
    ask = question("smollm2-135m", max_tokens=4)
    # Slices follow the pace: the fifth request on a connection takes a slice that lasts its worker for several more.
    answers = [await customer.client.chat.completions.create(**ask) for _ in range(6)]
    os.kill(_running(system).pids["office"], signal.SIGKILL)
    answers.append(await customer.client.chat.completions.create(**ask))
    until(lambda: _office_is_back(system))
    spent = sum(answer.usage.total_tokens for answer in answers if answer.usage)
    until(lambda: customer.left() == 10_000_000 - spent)


async def test_probes_and_metrics(system: Spawned) -> None:
    async with httpx2.AsyncClient() as http:
        for address in (system.addresses["gateway"], system.addresses["office"]):
            assert (await http.get(f"{address}/healthz")).status_code == 200
            assert (await http.get(f"{address}/readyz")).status_code == 200
        metrics = (await http.get(f"{system.addresses['office']}/metrics")).text
    assert "gen_ai_client_token_usage_count{" in metrics
    assert "gen_ai_server_time_to_first_token_seconds_bucket{" in metrics


async def _read(answer: httpx2.Response, what: bytes, times: int) -> None:
    seen = b""
    async for part in answer.aiter_raw():
        seen += part
        if seen.count(what) >= times:
            return


def _running(system: Spawned) -> claim.Running:
    running = claim.running_on(system.data)
    assert running
    return running


def _workers(system: Spawned) -> list[int]:
    return [pid for name, pid in _running(system).pids.items() if name.startswith("worker")]


def _has_checkpoint(system: Spawned, request_id: str) -> bool:
    """The words may be with the customer a moment before the checkpoint that counts them is in the journal."""
    for folder in list_journals(system.data / "journal"):
        frames = read_frames(folder, 0, 1 << 20).data
        entries = {position: journal.decode(payload) for position, payload in split(frames)}
        for entry in entries.values():
            if isinstance(entry, journal.Checkpoint):
                opening = entries[entry.opening]
                assert isinstance(opening, journal.Opening)
                if opening.request_id == request_id:
                    return True
    return False


def _office_is_back(system: Spawned) -> bool:
    try:
        return httpx2.get(f"{system.addresses['office']}/readyz", timeout=1).status_code == 200
    except httpx2.TransportError:
        return False
