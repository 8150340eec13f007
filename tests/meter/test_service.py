"""Metering over the bus, the feed, the metrics, and usage as programs read it."""

import asyncio
import gc

import msgspec
import psycopg
from prometheus_client import CollectorRegistry

from ledger.books import Journal, bucket, charge, faults, lease, sell
from tokenworks.base.bus import Bus
from tokenworks.base.database import Pool
from tokenworks.core.usage import Tokens
from tokenworks.core.wire import SHIP, ShipReply
from tokenworks.meter.desk import Desk
from tokenworks.meter.feed import EVENTS_WAITING_MAX, Event, Feed
from tokenworks.meter.metrics import Metrics
from tokenworks.meter.service import Metering
from tokenworks.meter.usage import records


async def used(pool: Pool, times: int = 1) -> Journal:
    """A journal with requests of 10 tokens each, not shipped."""
    await sell(pool, bucket("b"))
    held = await lease(pool, 1, 1_000)
    book = Journal()
    for _ in range(times):
        book.close(book.open(held), charge(held, 10))
    return book


async def test_shipments_over_the_bus(database: Pool, bus: Bus) -> None:
    book = await used(database)
    metering = Metering(Desk(database), bus, Feed(), Metrics(CollectorRegistry()))
    await metering.start()
    ship = msgspec.msgpack.encode(book.rest(final=True))
    answers = await asyncio.gather(*(bus.request(SHIP, ship) for _ in range(3)))
    await metering.stop()
    assert [msgspec.msgpack.decode(one, type=ShipReply) for one in answers] == [ShipReply(len(book.data))] * 3
    assert await faults(database) == []


async def test_a_database_that_is_away_takes_nothing_and_crashes_nothing(
    database_url: str, database: Pool, bus: Bus
) -> None:
    book = await used(database)
    metering = Metering(Desk(database), bus, Feed(), Metrics(CollectorRegistry()))
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as conn:
        await conn.execute("ALTER TABLE usage_record RENAME TO away")
        reply = await metering.post(book.rest())
        assert (reply.posted_through, reply.fault.startswith("the ledger cannot post now")) == (0, True)
        await conn.execute("ALTER TABLE away RENAME TO usage_record")
    assert await metering.post(book.rest()) == ShipReply(len(book.data))


async def test_journals_that_never_end_leave_nothing_behind(database: Pool, bus: Bus) -> None:
    metering = Metering(Desk(database), bus, Feed(), Metrics(CollectorRegistry()))

    def locks() -> int:
        gc.collect()
        return sum(type(one) is asyncio.Lock for one in gc.get_objects())

    before = locks()
    for number in range(20):
        assert not (await metering.post(Journal(f"j{number}").rest())).fault
    assert locks() - before < 20


async def test_the_feed_tells_what_was_posted(database: Pool, bus: Bus) -> None:
    book = await used(database)
    feed = Feed()
    with feed.subscribe() as stream:
        await Metering(Desk(database), bus, feed, Metrics(CollectorRegistry())).post(book.rest())
        opened, closed, posted = [await anext(stream) for _ in range(3)]
    assert [event.kind for event in (opened, closed, posted)] == ["opened", "closed", "posted"]
    assert {event.request_id for event in (opened, closed, posted)} == {"req-j1-1"}
    assert opened.reserved == {"token": 1_000}
    assert (closed.tokens, closed.cost, closed.flags, closed.duration_ns) == (Tokens(10), {"CNY": 3}, ("odd",), 4)
    assert (posted.posting_id > 0, posted.charges[0].revenue) == (True, 9_340)
    assert not feed.watched


async def test_a_slow_watcher_loses_the_oldest() -> None:
    feed = Feed()
    with feed.subscribe() as stream:
        for number in range(EVENTS_WAITING_MAX + 5):
            feed.publish(Event("opened", number, "r", "le", "acc", "m", number, {}))
        assert (await anext(stream)).at_ns == 5


async def test_metrics_count_posted_usage(database: Pool, bus: Bus) -> None:
    book = await used(database, times=3)
    registry = CollectorRegistry()
    await Metering(Desk(database), bus, Feed(), Metrics(registry)).post(book.rest())
    labels = {"gen_ai_operation_name": "chat", "gen_ai_request_model": "m"}
    value = registry.get_sample_value
    assert value("gen_ai_client_token_usage_sum", {**labels, "gen_ai_token_type": "input"}) == 30
    assert value("gen_ai_server_request_duration_seconds_count", {**labels, "error_type": ""}) == 3
    assert value("gen_ai_server_time_to_first_token_seconds_count", labels) == 3
    assert value("tokenworks_tokens_total", {"gen_ai_request_model": "m", "token_class": "input"}) == 30
    posted = {"gen_ai_request_model": "m", "basis": "reported", "ending": "finished"}
    assert value("tokenworks_usage_records_total", posted) == 3


async def test_usage_is_listed_newest_first_in_pages(database: Pool) -> None:
    book = await used(database, times=5)
    await book.ship(database)
    async with database.connection() as conn:
        first = await records(conn, "acc", limit=3)
        rest = await records(conn, "acc", before=first[-1].id, limit=3)
        (one,) = await records(conn, request_id="req-j1-2")
        assert await records(conn, "nobody") == []
    assert [record.request_id for record in first + rest] == [f"req-j1-{n}" for n in (5, 4, 3, 2, 1)]
    assert (one.tokens, one.reported, one.basis, one.flags) == (Tokens(10), Tokens(10), "reported", ("odd",))
    assert [(line.bucket_id, line.tariff, line.amount) for line in one.charges] == [("b", "plain@1", 10)]
    assert [(line.supplier_id, line.cost, line.currency) for line in one.attempts] == [("sup", 3, "CNY")]
    assert [part.amount for part in one.reserved] == [1_000]
