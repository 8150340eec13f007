"""A gateway on another machine, which reaches the first one over a link that can be cut: a network namespace."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
from msgspec.structs import replace

from supplier import Supplier, stuck_stream, supplier, usage, whole
from system.conftest import Customer, made, until
from system.namespace import PORT, Link, Machine, machine
from system.test_operation import question, serve_from
from tokenworks.app import claim
from tokenworks.app.client import OfficeClient
from tokenworks.app.spawned import Spawned
from tokenworks.base.config import Settings
from tokenworks.base.journal import list_journals, read_mark

PATH = "/v1/chat/completions"
PACKAGE = "ct-personal-10m"
WORKERS = {"east-0", "east-1"}


def elsewhere(system: Spawned, folder: Path) -> Settings:
    """A second machine's settings: the bus of the first, a folder of its own, and little patience."""
    return Settings(
        data_dir=str(folder),
        master_key_file=str(system.data / "secrets" / "master-keys"),
        gateway_port=PORT,
        gateway_name="east",
        nats_url=system.addresses["nats"],
        nats_token=(system.data / "secrets" / "nats-token").read_text().strip(),
        bus_timeout_ms=3_000,
        lease_wait_ms=500,
        restart_pause_ms=50,
    )


def port_of(address: str) -> int:
    return urlsplit(address).port or 0


async def ask(there: Machine, key: str, model: str) -> httpx2.Response:
    body = question(model, max_tokens=2_000)
    return await there.http.post(PATH, json=body, headers={"authorization": f"Bearer {key}"})


async def served(there: Machine, key: str, model: str) -> str:
    """The id of a request that is served."""
    answer = await ask(there, key, model)
    assert answer.status_code == 200, answer.text
    return answer.headers["x-request-id"]


async def test_a_second_machine_serves_survives_a_cut_link_and_catches_up(
    system: Spawned, customer: Customer, office: OfficeClient, tmp_path: Path
) -> None:
    customer.buy(PACKAGE)
    bus = Link(port_of(system.addresses["nats"]))
    key, lost = customer.key["secret"], made(office, "/keys", customer=customer.id, name="lost")
    async with supplier() as vendor:
        # Answers that use much of a slice: what workers hold is soon used up when the link is cut.
        vendor.default = whole("Hello.", usage(10, 1_900))
        links = ((port_of(system.addresses["nats"]), bus), (port_of(vendor.url), Link(port_of(vendor.url))))
        model = serve_from(office, vendor)
        async with machine(elsewhere(system, tmp_path), *links) as there:
            assert there.places["name"] == "east"
            # The catalog with the new model came over the link; slices follow the pace of what is asked.
            ids = [await served(there, each, model) for each in (lost["secret"], *[key] * 5)]
            assert {folder.parent.name for folder in list_journals(tmp_path / "journal")} == WORKERS
            assert not set(_worker_names(system)) & WORKERS

            bus.cut()
            ids += await _served_until_refused(there, key, model)
            assert len(ids) > 6, "nothing was served from leases"
            office.delete(f"/keys/{lost['id']}")
            assert office.get("/usage", request=ids[-1])["items"] == []

            bus.heal()
            for request_id in ids:
                assert await asyncio.to_thread(customer.record, request_id)
            # The announcement was missed; a key is doubted after a cut until it was asked for again.
            refused = await ask(there, lost["secret"], model)
            assert (refused.status_code, refused.json()["error"]["code"]) == (401, "key_revoked")
            ids.append(await _served_again(there, key, model))
            assert await asyncio.to_thread(customer.record, ids[-1])

            ids = [await served(there, key, model) for _ in range(5)]
            bus.swallow()
            ids += await _served_until_refused(there, key, model)
            bus.heal()
            for request_id in ids:
                assert await asyncio.to_thread(customer.record, request_id)
            await _served_again(there, key, model)
            dead = set(list_journals(tmp_path / "journal"))
            await _kill_and_settle(there, vendor, customer, model)
            await asyncio.to_thread(until, lambda: dead.isdisjoint(list_journals(tmp_path / "journal")))
            office.delete(f"/keys/{customer.key['id']}")
            while (await ask(there, key, model)).status_code != 401:
                pass
            # A worker that is stopped while it starts leaves the beginning of a journal to its successor.
            await asyncio.to_thread(until, lambda: _have_shipped(tmp_path / "journal"))
        assert there.process.returncode == 0
        assert list_journals(tmp_path / "journal") == []
    until(lambda: all(bucket["leased"] == 0 for bucket in customer.buckets()))
    report = office.get("/ledger/verify")
    assert [check for check in report["checks"] if not check["ok"]] == []


async def _served_until_refused(there: Machine, key: str, model: str) -> list[str]:
    """Requests go on with what the workers hold; then they are refused as long as nobody can be asked."""
    ids: list[str] = []
    while (answer := await ask(there, key, model)).status_code == 200:
        ids.append(answer.headers["x-request-id"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "lease_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    return ids


async def _served_again(there: Machine, key: str, model: str) -> str:
    while (answer := await ask(there, key, model)).status_code != 200:
        assert answer.json()["error"]["code"] == "lease_unavailable"
    return answer.headers["x-request-id"]


async def _kill_and_settle(there: Machine, vendor: Supplier, customer: Customer, model: str) -> None:
    """Its workers are killed in the middle of a stream: their successors on that disk close and post it."""
    vendor.script(stuck_stream(["word "] * 100))
    headers = {"authorization": f"Bearer {customer.key['secret']}"}
    body: dict[str, Any] = question(model, stream=True)
    async with there.http.stream("POST", PATH, json=body, headers=headers) as answer:
        request_id = answer.headers["x-request-id"]
        seen = b""
        async for part in answer.aiter_raw():
            seen += part
            if seen.count(b"word") >= 100:
                break
        running = claim.running_on(Path(there.places["data"]))
        assert running is not None
        for name, pid in running.pids.items():
            assert name.startswith("worker-")
            os.kill(pid, signal.SIGKILL)
    record = await asyncio.to_thread(customer.record, request_id)
    assert record["ending"] == "orphaned"


def _have_shipped(journals: Path) -> bool:
    """Whether all workers have had something of their present journals posted."""
    running = list_journals(journals)
    return {folder.parent.name for folder in running} == WORKERS and all(map(read_mark, running))


def _worker_names(system: Spawned) -> list[str]:
    return [folder.parent.name for folder in list_journals(system.data / "journal")]


async def test_a_gateway_without_a_bus_says_what_is_missing(tmp_path: Path, system: Spawned) -> None:
    nowhere = replace(elsewhere(system, tmp_path), nats_url="")
    unreachable = elsewhere(system, tmp_path)
    cut = Link(1)
    cut.cut()
    for settings, said in ((nowhere, "TOKENWORKS_NATS_URL is not set"), (unreachable, "cannot be used")):
        with pytest.raises(AssertionError) as fault:
            async with machine(settings, (port_of(system.addresses["nats"]), cut)):
                pass
        sentence = str(fault.value).strip().splitlines()[-1]
        assert said in sentence
        assert sentence.startswith("tokenworks: ")
