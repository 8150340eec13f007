"""Limits in the database: versions under seal, what a key is told, and counts that outlive workers and the office."""

import asyncio
from typing import Any

import msgspec
import pytest

from shop.shopfront import NOON, Shop, another, faults, opened
from tokenworks.access import keys, limits
from tokenworks.access.counts import CountDesk
from tokenworks.base import clock
from tokenworks.base.bus import Bus
from tokenworks.base.database import Pool
from tokenworks.core.commands import CommandRefused
from tokenworks.core.limits import Counted, Limit, Limits
from tokenworks.core.wire import LIMIT_COUNTS, LimitCounts
from tokenworks.shop import sealed

RPM = {"metric": "requests", "unit": "", "within": "minute", "rolling": False, "amount": 60} | {
    "timezone": "UTC",
    "currency": "CNY",
}


async def put(shop: Shop, pool: Pool, **given: Any) -> limits.LimitRecord:
    values = {"customer_id": shop.customer.id, "key_id": None, "at_ns": NOON} | RPM | given
    async with sealed.transaction(pool, NOON) as connection:
        return await limits.put(connection, **values)


async def test_versions_of_a_limit(database: Pool) -> None:
    shop = await opened(database)
    first = await put(shop, database)
    assert first.id == f"{shop.customer.id}.requests.minute"
    assert await put(shop, database) == first
    second = await put(shop, database, amount=5, at_ns=NOON + 1)
    assert (second.version, second.amount) == (2, 5)
    async with sealed.transaction(database, NOON) as connection:
        gone = await limits.remove(connection, first.id, NOON + 2)
        assert (gone.version, gone.amount, gone.limit()) == (3, None, None)
        assert await limits.remove(connection, first.id, NOON + 3) == gone
        assert await limits.get(connection, first.id) == gone
        assert await limits.listed(connection, "", "", 10, "") == []
        with pytest.raises(CommandRefused):
            await limits.remove(connection, "nobody.requests.minute", NOON)
    assert (await put(shop, database)).version == 4
    assert await faults(database) == []


async def test_a_key_is_told_its_own_limits_and_its_customer_s(database: Pool) -> None:
    shop = await opened(database)
    other = await another(shop, "+8613800000124")
    own_digest, own = await made(shop, database)
    sibling_digest, _ = await made(shop, database)
    assert await told(database, own_digest) is None
    await put(shop, database)
    await put(shop, database, key_id=own, metric="spend", unit="CNY", within="month", amount=5)
    await put(shop, database, metric="weight", within="", amount=3)
    await put(shop, database, customer_id=other.id, amount=1)
    of_customer = Limit(f"{shop.customer.id}.requests.minute", "requests", 60, "minute")
    of_key = Limit(f"{own}.spend.CNY.month", "spend", 5, "month", unit="CNY")
    assert await told(database, own_digest) == Limits((of_customer, of_key), weight=3)
    assert await told(database, sibling_digest) == Limits((of_customer,), weight=3)
    others_digest = (await shop.key(other)).digest
    async with database.connection() as connection:
        found = await keys.find_all(connection, [own_digest, sibling_digest, others_digest, b"nobody"])
        assert [key.limits for key in map(found.get, (own_digest, sibling_digest)) if key] == [
            Limits((of_customer, of_key), weight=3),
            Limits((of_customer,), weight=3),
        ]
        of_other = Limit(f"{other.id}.requests.minute", "requests", 1, "minute")
        assert found[others_digest].limits == Limits((of_other,))
        assert len(found) == 3
        assert [each.id for each in await limits.listed(connection, "", own, 10, "")] == [of_key.id]
        page = await limits.listed(connection, shop.customer.id, "", 2, "")
        assert len(page) == 2
        assert len(await limits.listed(connection, shop.customer.id, "", 2, page[-1].id)) == 1


async def made(shop: Shop, pool: Pool) -> tuple[bytes, str]:
    async with pool.connection() as connection:
        before = {each.id for each in await keys.listed(connection, shop.customer.id, 10, "")}
    await shop.key(shop.customer)
    async with pool.connection() as connection:
        (record,) = [each for each in await keys.listed(connection, shop.customer.id, 10, "") if each.id not in before]
    return record.digest, record.id


async def told(pool: Pool, digest: bytes) -> Limits | None:
    async with pool.connection() as connection:
        found = await keys.find(connection, digest)
    assert found is not None
    return found.limits


WRONG: list[dict[str, Any]] = [
    {"metric": "words"},
    {"within": ""},
    {"within": "hour"},
    {"metric": "concurrency"},
    {"metric": "concurrency", "within": "", "rolling": True},
    {"metric": "spend", "unit": ""},
    {"metric": "spend", "unit": "yuan"},
    {"unit": "CNY"},
    {"amount": -1},
    {"amount": 1 << 63},
    {"metric": "weight", "within": "", "amount": 0},
    {"metric": "weight", "within": "", "amount": 2, "key_id": "key_1"},
]


@pytest.mark.parametrize("given", WRONG, ids=str)
async def test_limits_that_are_none(database: Pool, given: dict[str, Any]) -> None:
    shop = await opened(database)
    with pytest.raises(CommandRefused):
        await put(shop, database, **given)


async def test_counts_outlive_workers_and_the_office(database: Pool, bus: Bus) -> None:
    now_ns = clock.wall_ns()
    until_ns = now_ns + 86_400 * clock.SECOND
    day = Limit("key.tokens.day", "tokens", 10, "day")
    desk = CountDesk(database, bus)
    await desk.start()
    said = [
        LimitCounts("a", (Counted(day.id, "a", now_ns, 5, until_ns), Counted("key.concurrency", "a", 0, 1))),
        LimitCounts("b", (Counted(day.id, "b", now_ns, 7, until_ns),)),
        LimitCounts("a", (Counted(day.id, "a", now_ns, 3, until_ns),)),
        LimitCounts("a", (Counted("key.requests.minute", "a", now_ns, 9, now_ns + 60 * clock.SECOND),)),
        LimitCounts("c", (Counted(day.id, "c", 1, 7, now_ns - 1),)),
    ]
    for each in said:
        await bus.publish(LIMIT_COUNTS, msgspec.msgpack.encode(each))
    minute = Limit("key.requests.minute", "requests", 10, "minute")
    never = asyncio.get_running_loop().create_future()
    async with asyncio.timeout(5):
        while desk.used([minute])[minute.id] == 0:
            await asyncio.wait([never], timeout=0.002)
    assert desk.used([day]) == {day.id: 10}
    await desk.stop()
    again = CountDesk(database, bus)
    await again.start()
    assert again.used([day, minute]) == {day.id: 10, minute.id: 0}
    assert {(each.epoch, each.used) for each in again.counts(Limits((day, minute))).counts} == {("a", 3), ("b", 7)}
    await again.stop()
