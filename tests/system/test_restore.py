"""A disaster: the database is gone, and is put back to before the last load. The workers' journals bring the rest."""

import asyncio
import os
import shutil
import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from supplier import supplier
from system.conftest import made, until
from tokenworks.app import backups, claim
from tokenworks.app.client import OfficeClient, Record, address
from tokenworks.app.spawned import spawned, throwaway
from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.base.postgres_backup import BackupFault

ANSWER_TOKENS = 17
QUESTION = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 20}


@pytest.fixture
def vendor() -> Generator[str]:
    """An endpoint that answers as long as the test runs, whatever happens to the system."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = supplier()
    running = asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(5)
    yield running.url
    asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@contextmanager
def started(settings: Settings) -> Generator[OfficeClient]:
    with spawned(settings), OfficeClient(address(Settings(data_dir=settings.data_dir))) as office:
        yield office


def served(office: OfficeClient, settings: Settings, secret: str, times: int) -> None:
    """So many requests of one customer, one after another."""
    running = claim.running_on(settings.data)
    assert running
    with httpx2.Client(base_url=running.addresses["gateway"], headers={"authorization": f"Bearer {secret}"}) as http:
        until(lambda: "m" in http.get("/v1/models").text)
        for _ in range(times):
            answer = until(lambda: _answer(http))
            assert answer["usage"]["total_tokens"] == ANSWER_TOKENS
    del office


def _answer(http: httpx2.Client) -> Any:
    """A ledger that settles grants nothing for a moment; the customer comes again, as the official client does."""
    answer = http.post("/v1/chat/completions", json=QUESTION | {"model": "m"})
    if answer.status_code == 503:
        assert answer.json()["error"]["code"] == "lease_unavailable"
        return None
    assert answer.status_code == 200, answer.text
    return answer.json()


def books(office: OfficeClient) -> Record:
    """What must be the same: balances without what is with workers just now, money, and every usage record."""
    balances = office.get("/balances")["items"]
    money = [
        each for each in office.get("/ledger/accounts")["items"] if not each["code"].startswith(("lease", "bucket"))
    ]
    usage = sorted(office.items("/usage", 1_000), key=lambda each: each["request_id"])
    return {
        "balances": [
            {name: each[name] for name in ("bucket_id", "granted", "spent", "expired")}
            | {"left": each["available"] + each["leased"]}
            for each in balances
        ],
        "money": [{name: each[name] for name in ("code", "unit", "balance")} for each in money],
        "usage": [{name: each[name] for name in ("request_id", "tokens", "charges", "flags")} for each in usage],
    }


def kill(settings: Settings) -> None:
    """The machine goes down: nobody gives anything back. Whoever waits for the system sees it end."""
    running = claim.running_on(settings.data)
    assert running
    os.kill(running.pid, signal.SIGKILL)
    end = [Path(f"/proc/{pid}") for pid in (running.pid, *running.pids.values())]
    pause = threading.Event()
    while any(path.exists() for path in end):
        pause.wait(0.01)


def test_a_destroyed_database_is_put_back_and_the_journals_bring_the_rest(scratch: Path, vendor: str) -> None:
    settings = msgspec.structs.replace(
        throwaway(scratch / "restored", Settings()),
        embedded_engine=False,
        workers=1,
        housekeeping_ms=200,
        bus_timeout_ms=1_000,
    )
    told: list[str] = []
    with started(settings) as office:
        purchase = {"input": "2", "output": "4", "currency": "CNY"}
        made(office, "/suppliers", id="vendor", name="Vendor", currency="CNY")
        model = {"id": "m", "context_window": 4096, "output_max": 2048}
        made(office, "/endpoints", supplier="vendor", model=model, base_url=vendor, purchase=purchase)
        person = made(office, "/customers", name="Chen Jie", phone="+8613900000042")
        made(office, "/orders", customer=person["id"], offer="ct-personal-10m")
        secret = made(office, "/keys", customer=person["id"], name="test")["secret"]
        served(office, settings, secret, 3)
        asyncio.run(backups.take(settings, None, told.append))
        archived = settings.backups / "wal-00000001"
        until(lambda: office.get("/health") and archived.is_dir() and list(archived.iterdir()))
        served(office, settings, secret, 2)
        until(lambda: len(office.get("/usage")["items"]) == 5)
        moment = clock.iso(clock.wall_ns() + clock.MS)
        served(office, settings, secret, 6)
        until(lambda: len(office.get("/usage")["items"]) == 11)
        before = books(office)
        with pytest.raises(Exception, match="already running"):
            asyncio.run(backups.restore(settings, "latest", None, told.append))
        kill(settings)
    shutil.rmtree(settings.data / "postgres")
    with pytest.raises(BackupFault, match="cannot go further back"):
        asyncio.run(backups.restore(settings, "2020-01-01T00:00:00Z", None, told.append))
    assert asyncio.run(backups.restore(settings, moment, None, told.append)) is None
    with started(settings) as office:
        until(lambda: office.get("/ledger/epochs")["items"][0]["settled"])
        epochs = office.get("/ledger/epochs")["items"]
        assert [(each["why"], each["timeline"], each["settled"]) for each in epochs] == [
            ("restore", "00000002", "shipped"),
            ("created", "00000001", "created"),
        ]
        assert books(office) == before
        served(office, settings, secret, 2)
        until(lambda: len(office.get("/usage")["items"]) == 13)
        report = office.get("/ledger/verify")
        assert [check for check in report["checks"] if not check["ok"]] == []
        left = [each["left"] for each in books(office)["balances"] if each["spent"]]
        assert left == [10_000_000 - 13 * ANSWER_TOKENS]
