"""Sums of usage by hour: exact at every moment, late records in their hour, whatever is covered already."""

from ledger.books import ENTITY, Journal, bucket, charge, faults, lease, sell
from tokenworks.base.database import Pool
from tokenworks.core.journal import Attempt, Closing
from tokenworks.core.purse import Charge
from tokenworks.core.usage import Tokens
from tokenworks.meter import usage_hours
from tokenworks.meter.usage_hours import DAY_NS, HOUR_NS, Used, Wanted

HOURS = (3 * HOUR_NS, 27 * HOUR_NS + 5, 3 * HOUR_NS + HOUR_NS - 1)  # in two hours and on two days; the last is late


async def used(pool: Pool, wanted: Wanted | None = None) -> list[Used]:
    async with pool.connection() as conn:
        return await usage_hours.summary(conn, wanted or Wanted())


def close(book: Journal, opening: int, closed_at_ns: int, *charges: Charge, attempts: int = 2) -> None:
    """A request with an attempt that served, and before it one that failed, in another currency, if there were two."""
    tokens = sum((one.tokens for one in charges), Tokens())
    tries = (
        Attempt("ep", "sup", "buy@1", "USD", Tokens(), 5, "endpoint_broken", 1, 0, 2),
        Attempt("ep2", "sup", "buy@1", "CNY", tokens, 7, "finished", 2, 3, 4),
    )[2 - attempts :]
    book.add(Closing(opening, closed_at_ns, "finished", "reported", tokens, tokens, tokens, (), charges, tries, 2))


async def test_sums_by_hour_and_day_are_the_records(database: Pool) -> None:
    await sell(database, bucket("b"), granted=1_000, net=2_000)
    held = await lease(database, 1, 500)
    book = Journal()
    seen: list[list[Used]] = []
    for closed_at_ns in HOURS:
        close(book, book.open(held), closed_at_ns, charge(held, 100))
        assert (await book.ship(database)).fault == ""
        before = await used(database)
        await usage_hours.keep_up(database)
        assert await used(database) == before
        seen.append(before)
    tokens, money, abroad = (
        Used(3 * HOUR_NS, ENTITY, "acc", "m", "token", 2, Tokens(200), 200, 0, 0, 0),
        Used(3 * HOUR_NS, ENTITY, "acc", "m", "CNY", 0, Tokens(), 0, 0, 400, 14),
        Used(3 * HOUR_NS, ENTITY, "acc", "m", "USD", 0, Tokens(), 0, 0, 0, 10),
    )
    assert [each for each in seen[-1] if each.from_ns == 3 * HOUR_NS] == [money, abroad, tokens]
    days = await used(database, Wanted("day"))
    assert [(each.from_ns, each.unit, each.requests, each.cost) for each in days] == [
        (0, "CNY", 0, 14),
        (0, "USD", 0, 10),
        (0, "token", 2, 0),
        (DAY_NS, "CNY", 0, 7),
        (DAY_NS, "USD", 0, 5),
        (DAY_NS, "token", 1, 0),
    ]
    assert await used(database, Wanted("hour", from_ns=27 * HOUR_NS + 9, to_ns=28 * HOUR_NS)) == seen[-1][3:]
    assert await used(database, Wanted(billing_account_id="another")) == []
    async with database.connection() as conn:
        assert await usage_hours.cost_of(conn, "acc") == {"CNY": 21, "USD": 15}
    assert await faults(database) == []


async def test_steps_of_any_size_come_to_the_same(database: Pool) -> None:
    await sell(database, bucket("b"), granted=1_000, net=2_000)
    held = await lease(database, 1, 500)
    book = Journal()
    for count in (1, 3, 2, 1):
        for _ in range(count):
            close(book, book.open(held), 1, charge(held, 10))
        assert (await book.ship(database)).fault == ""
    seen = await used(database)
    for records_at_once in (1, 4, 100):
        async with database.connection() as conn:
            await conn.execute("DELETE FROM usage_hour")
            await conn.execute("UPDATE usage_hour_cursor SET seq = 0")
        await usage_hours.keep_up(database, records_at_once)
        assert await used(database) == seen
        assert await faults(database) == []


async def test_unproven_and_uncharged_requests_count(database: Pool) -> None:
    await sell(database, bucket("b"))
    held = await lease(database, 1, 50)
    book = Journal()
    close(book, book.open(held), 1, charge(held, 51))
    close(book, book.open(held), 1)
    close(book, book.open(), 1)
    assert (await book.ship(database)).fault == ""
    await usage_hours.keep_up(database)
    sums = {each.unit: (each.requests, each.charged, each.unproven) for each in await used(database)}
    assert sums == {"token": (2, 0, 51), "": (1, 0, 0), "CNY": (0, 0, 0), "USD": (0, 0, 0)}
    assert await faults(database) == []


async def test_what_is_kept_of_requests_of_every_shape_is_what_the_records_say(database: Pool) -> None:
    """Requests with one charge and one attempt are summed another way than those with more."""
    await sell(database, bucket("b"), granted=1_000, net=2_000)
    held = await lease(database, 1, 500)
    book = Journal()
    for attempts in (0, 1, 2):
        close(book, book.open(held), 1, attempts=attempts)
        close(book, book.open(held), 1, charge(held, 10), attempts=attempts)
        close(book, book.open(held), 1, charge(held, 20), charge(held, 30), attempts=attempts)
        close(book, book.open(held), 1, charge(held, 501), attempts=attempts)
        close(book, book.open(), 1, attempts=attempts)
    assert (await book.ship(database)).fault == ""
    seen = await used(database)
    await usage_hours.keep_up(database)
    assert await used(database) == seen
    sums = {each.unit: (each.requests, each.charged, each.unproven, each.revenue, each.cost) for each in seen}
    assert sums == {
        "token": (12, 180, 1_503, 0, 0),
        "": (3, 0, 0, 0, 0),
        "CNY": (0, 0, 0, 360, 70),
        "USD": (0, 0, 0, 0, 25),
    }
    assert await faults(database) == []
