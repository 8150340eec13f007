"""Leases of a measurement: how seldom warm accounts ask for one, how large slices are, and how long asking takes.

The round trip is measured without load, from another process, as a worker would ask: bare, to a handler that gives the
payload back, and to the lease desk, which commits a grant to the database. The two take turns, so that both find the
machine in the same state.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from statistics import median

import msgspec

from tokenworks.app import claim
from tokenworks.base import bus as buses
from tokenworks.base import clock, ids
from tokenworks.base.bus import Bus
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.bench.endpoint import MODEL
from tokenworks.core.bounds import Need
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.wire import LEASE_REQUEST

WARM_ACCOUNTS = 10
_ROUNDS = 200
_ECHO = "tokenworks.bench.echo"
# On a busy machine a connection may just be on its way back: who answers is waited for.
_ABSENT_MS = 5_000

Ask = Callable[[int], Awaitable[None]]
"""Asks for the first time, for the second, …"""

# The accounts with most requests since a time: their requests, their leases, and the largest slice as a share in
# millionths of what its bucket had, which nobody has used much of here.
_WARM = """
    WITH warm AS (
        SELECT billing_account_id, count(*) AS requests FROM usage_record WHERE opened_at_ns >= %(since)s
        GROUP BY billing_account_id ORDER BY requests DESC, billing_account_id LIMIT %(accounts)s)
    SELECT (SELECT coalesce(sum(requests), 0) FROM warm), count(l.id),
        coalesce(max(div(l.amount * 1000000, b.granted)), 0)
    FROM warm w JOIN bucket b USING (billing_account_id)
    LEFT JOIN lease l ON l.bucket_id = b.id AND l.granted_at_ns >= %(since)s
"""


class Figures(msgspec.Struct, frozen=True):
    """Of the busiest accounts, and of a worker that asks at rest."""

    leases_per_1000_requests: float
    slice_percent_max: float
    lease_rtt_p50_ms: float
    nats_rtt_p50_ms: float


async def figures(settings: Settings, pool: Pool, nats_url: str, since_ns: int) -> Figures:
    """All of them; `since_ns` is when the accounts had become warm."""
    async with pool.connection() as connection:
        row = await (await connection.execute(_WARM, {"since": since_ns, "accounts": WARM_ACCOUNTS})).fetchone()
        found = await connection.execute("SELECT billing_account_id FROM bucket ORDER BY id LIMIT %s", (_ROUNDS,))
        accounts = [str(account) for (account,) in await found.fetchall()]
    requests, leases, share = (int(number) for number in row or (0, 0, 0))
    token = claim.secret(settings.data, "nats-token")
    async with connected(nats_url, token) as (asking, answering):
        nats_ms, lease_ms = await medians_ms(await bare(asking, answering), _leases(asking, accounts))
    return Figures(
        leases_per_1000_requests=round(1_000 * leases / max(1, requests), 3),
        slice_percent_max=round(share / 10_000, 4),
        lease_rtt_p50_ms=lease_ms,
        nats_rtt_p50_ms=nats_ms,
    )


@asynccontextmanager
async def connected(nats_url: str, token: str) -> AsyncGenerator[tuple[Bus, Bus]]:
    """Two connections: one to ask, one to answer."""
    asking = await buses.connect(nats_url, token, "bench")
    try:
        answering = await buses.connect(nats_url, token, "bench-echo")
        try:
            yield asking, answering
        finally:
            await answering.close()
    finally:
        await asking.close()


async def bare(asking: Bus, answering: Bus) -> Ask:
    """A request that is given back as it is."""

    async def echo(_subject: str, payload: bytes) -> bytes:
        return payload

    await answering.subscribe(_ECHO, echo, queue=_ECHO)

    async def ask(_number: int) -> None:
        await asking.request(_ECHO, b"x" * 200, absent_ms=_ABSENT_MS)

    return ask


def _leases(asking: Bus, accounts: list[str]) -> Ask:
    """Each for another account, as cold ones would be."""
    epoch = ids.new("bench")

    async def ask(number: int) -> None:
        one = Need(1, 1)
        account = accounts[number % len(accounts)]
        request = LeaseRequest("bench", epoch, number, account, MODEL, one, one, one, one)
        reply = msgspec.msgpack.decode(
            await asking.request(LEASE_REQUEST, msgspec.msgpack.encode(request)), type=LeaseReply
        )
        if not reply.leases:
            raise LookupError(f"no lease was granted to {account}: {reply.refusal}")

    return ask


async def medians_ms(one: Ask, other: Ask) -> tuple[float, float]:
    """Of each, half of many, asked in turns, take less."""
    times: tuple[list[int], list[int]] = ([], [])
    for number in range(_ROUNDS):
        for ask, took in zip((one, other), times, strict=True):
            began_ns = clock.boot_ns()
            await ask(number)
            took.append(clock.boot_ns() - began_ns)
    return round(median(times[0]) / clock.MS, 3), round(median(times[1]) / clock.MS, 3)
