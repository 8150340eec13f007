"""`tokenworks restart workers` on the real system, while customers ask and streams run: no request fails."""

import asyncio
import json
import os
import sys
from typing import Any

from gateway.keeping_clients import Keeping
from system.conftest import Customer, until
from tokenworks.app import claim
from tokenworks.app.client import OfficeClient
from tokenworks.app.spawned import Spawned

PACKAGE = "ct-personal-10m"


def request(customer: Customer, tokens: int, *, stream: bool) -> bytes:
    body = {
        "model": "smollm2-135m",
        "messages": [{"role": "user", "content": "Tell me of a river."}],
        "max_tokens": tokens,
        "stream": stream,
    }
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {customer.key['secret']}\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


async def restarted(system: Spawned) -> list[dict[str, Any]]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tokenworks.cli", "restart", "workers", "--json"),
        env=os.environ | {"TOKENWORKS_DATA_DIR": str(system.data)},
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(out)["items"]


async def test_workers_are_replaced_while_customers_ask(
    system: Spawned, customer: Customer, office: OfficeClient
) -> None:
    customer.buy(PACKAGE)
    host, _, port = system.addresses["gateway"].removeprefix("http://").rpartition(":")
    address = (host, int(port))
    quick = [Keeping(address, request(customer, 2, stream=number % 2 == 1)) for number in range(3)]
    long = Keeping(address, request(customer, 200, stream=True))
    enough = asyncio.Event()
    load = [asyncio.create_task(each.go_on(enough, 2)) for each in quick]
    load.append(asyncio.create_task(long.go_on(enough, 1)))
    renewed = await restarted(system)
    enough.set()
    await asyncio.gather(*load)
    for each in (*quick, long):
        await each.leave()
    running = claim.running_on(system.data)
    assert running
    assert {each["worker"]: each["now"] for each in renewed} == {
        name: pid for name, pid in running.pids.items() if name.startswith("worker-")
    }
    assert all(each["before"] != each["now"] for each in renewed)
    served = sum(each.served for each in (*quick, long))

    def records() -> list[Any]:
        return list(office.items("/usage", 1_000, customer=customer.id))

    await asyncio.to_thread(until, lambda: len(records()) == served)
    assert {each["ending"] for each in records()} == {"finished"}
    report = office.get("/ledger/verify")
    assert [check for check in report["checks"] if not check["ok"]] == []
