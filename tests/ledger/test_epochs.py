"""Ledger epochs: after a failover nothing is granted until old leases are back, and the totals are the same again."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest
from psycopg import AsyncConnection

from ledger.books import GRANTED, SECOND, SETTINGS, Journal, ask, balances, bucket, charge, faults, grant, lease, sell
from tokenworks.base.database import Pool, open_pool
from tokenworks.core.journal import LeaseClose, LeaseTaken
from tokenworks.core.leasing import Lease
from tokenworks.core.refusals import Code
from tokenworks.ledger import epoch
from tokenworks.ledger.epoch import Epochs
from tokenworks.ledger.faults import EpochUnknown
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.store import transaction

LATER = SECOND + SETTINGS.bus_timeout_ms * 1_000_000


@asynccontextmanager
async def copy_of(url: str) -> AsyncGenerator[Pool]:
    """The ledger as it is now, as another database: what a restore to this moment gives."""
    name = url.partition("?")[0].rpartition("/")[2]
    server = url.replace(f"/{name}?", "/postgres?")
    async with await AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name} STRATEGY file_copy".encode())
    pool = await open_pool(url.replace(f"/{name}?", f"/{name}_copy?"))
    yield pool
    await pool.close()
    async with await AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(f"DROP DATABASE {name}_copy WITH (FORCE)".encode())


def take(book: Journal, held: Lease, sequence: int) -> None:
    """The worker writes a lease down."""
    book.add(LeaseTaken(held.lease_id, held.amount, held.bucket.id, sequence, 0, 2 * SECOND))


async def began(pool: Pool) -> Epochs:
    epochs = Epochs(pool, SETTINGS)
    assert await epochs.notice(SECOND) is not None
    return epochs


async def refused(pool: Pool) -> Code | None:
    reply = await grant(pool, ask(99, 1))
    return reply.refusal.code if reply.refusal else None


async def test_the_first_epoch_is_settled_and_noticed_once(database: Pool) -> None:
    await sell(database, bucket("b"))
    epochs = await began(database)
    assert await epochs.notice(2 * SECOND) is None
    assert await refused(database) is None
    async with database.connection() as conn:
        (only,) = await epoch.epochs(conn)
    assert (only.why, only.how, only.is_settled) == ("created", "created", True)
    assert await faults(database) == []


async def test_another_database_under_the_ledger_is_a_failover(database: Pool) -> None:
    await sell(database, bucket("b"))
    async with transaction(database, "epoch", 1) as conn:
        await conn.execute("INSERT INTO ledger_epoch VALUES (7, 'another', '00000001', 'created', 1, 1)")
        await conn.execute("INSERT INTO ledger_epoch_end VALUES (7, 'created', 1)")
    with pytest.raises(EpochUnknown):
        await grant(database, ask(1, 1))
    opened = await Epochs(database, SETTINGS).notice(SECOND)
    assert opened is not None
    assert (opened.epoch, opened.why, opened.is_settled) == (1_000, "failover", False)
    assert await refused(database) == Code.LEASE_UNAVAILABLE


async def test_an_epoch_is_settled_when_every_known_site_has_shipped(database: Pool) -> None:
    await sell(database, bucket("b"))
    epochs = await began(database)
    first = await current(database)
    await epochs.site_shipped(first.epoch, "here", SECOND)
    await epochs.site_shipped(first.epoch, "there", SECOND)
    second = await epochs.begin(SECOND, "restore")
    await epochs.site_shipped(second.epoch, "here", SECOND)
    assert await epochs.settle_due(LATER, is_late=False) is None
    await epochs.site_shipped(first.epoch, "there", SECOND)
    assert await epochs.settle_due(LATER, is_late=False) is None, "that was the epoch before"
    await epochs.site_shipped(second.epoch, "there", SECOND)
    assert await epochs.settle_due(LATER - 1, is_late=False) is None, "a grant may still be on its way"
    assert await refused(database) == Code.LEASE_UNAVAILABLE
    assert (await settled(epochs.settle_due(LATER, is_late=False))).how == "shipped"
    assert await refused(database) is None
    assert await faults(database) == []


async def test_an_epoch_ends_by_its_deadline_or_by_command(database: Pool) -> None:
    epochs = await began(database)
    await epochs.begin(SECOND, "restore")
    assert await epochs.settle_due(LATER, is_late=False) is None, "no site has reported yet"
    assert (await settled(epochs.settle_due(LATER, is_late=True))).how == "deadline"
    await epochs.begin(SECOND, "restore")
    assert (await settled(epochs.settle(LATER))).how == "operator"
    assert await epochs.settle(LATER) is None


async def test_without_a_standby_nothing_is_granted_if_one_is_required(database: Pool) -> None:
    await sell(database, bucket("b"))
    desk = LeaseDesk(database, msgspec.structs.replace(SETTINGS, standby_required=True))
    (reply,) = await desk.grant([ask(1, 1)], {}, SECOND)
    assert reply.refusal is not None
    assert (reply.refusal.code, reply.leases) == (Code.LEASE_UNAVAILABLE, ())
    assert "standby" in reply.refusal.message


async def test_grants_and_sales_are_durable_before_they_are_answered(database: Pool) -> None:
    async with transaction(database, "lease", 1) as conn:
        assert await (await conn.execute("SHOW synchronous_commit")).fetchone() == ("on",)


async def current(pool: Pool) -> epoch.Epoch:
    async with pool.connection() as conn:
        found = await epoch.current(conn)
    assert found is not None
    return found


async def settled(call: object) -> epoch.Epoch:
    found = await call  # type: ignore[misc]
    assert isinstance(found, epoch.Epoch)
    return found


async def test_after_a_restore_shipping_again_gives_the_same_totals(database: Pool, database_url: str) -> None:
    await sell(database, bucket("b"))
    await began(database)
    old, book = await lease(database, 1, 100), Journal()
    take(book, old, 1)
    before = book.open(old)
    await book.ship(database)
    async with restored(database, database_url) as (lost, again):
        new = await lease(lost, 2, 1_000)
        take(book, new, 2)
        book.close(before, charge(old, 30))
        book.close(book.open(new), charge(new, 400))
        book.add(LeaseClose(new.lease_id, 600))
        book.open(new)
        await book.ship(lost)
        open_still = await lease(lost, 5, 70)
        take(book, open_still, 5)
        third = await lease(lost, 3, 50)
        take(book, third, 3)
        book.close(book.open(third), charge(third, 50))
        await book.ship(lost)
        await Epochs(again, SETTINGS).begin(SECOND, "restore")
        for _ in range(2):
            book.shipped = 0
            reply = await book.ship(again)
            assert (reply.fault, reply.ledger_epoch > 0) == ("", True)
            assert await faults(again) == []
        await Epochs(again, SETTINGS).settle(SECOND)
        assert await balances(again) == await balances(lost)
        fresh = await lease(again, 4, 10)
        assert fresh.lease_id > third.lease_id
        assert await faults(again) == []


async def test_a_second_restore_from_the_same_copy_gives_no_id_of_the_first(database: Pool, database_url: str) -> None:
    await sell(database, bucket("b"))
    await began(database)
    async with restored(database, database_url) as (first, second):
        epochs, book = Epochs(first, SETTINGS), Journal()
        before = await epochs.begin(2 * SECOND, "restore")
        await epochs.settle(2 * SECOND)
        lost = await lease(first, 1, 100)
        take(book, lost, 1)
        position = book.open(lost)
        epochs = Epochs(second, SETTINGS)
        after = await epochs.begin(2 * SECOND + SECOND // 2, "restore")
        assert after.epoch > before.epoch
        book.close(position, charge(lost, 30))
        assert (await book.ship(second)).fault == ""
        await epochs.settle(3 * SECOND)
        assert (await lease(second, 2, 10)).lease_id > lost.lease_id
        left = await balances(second)
        assert (left["bucket/b/spent"], left.get("loss/unproven", 0)) == (30, 0)
        assert await faults(second) == []


async def test_journals_in_any_order_give_the_same_totals(database: Pool, database_url: str) -> None:
    """The second worker leased what the first had given back; its journal comes first after the restore."""
    await sell(database, bucket("b"), granted=100)
    await began(database)
    one, two = Journal("j1"), Journal("j2", "gw-1")
    async with restored(database, database_url) as (lost, again):
        held = await lease(lost, 1, 90)
        take(one, held, 1)
        one.close(one.open(held), charge(held, 20))
        one.add(LeaseClose(held.lease_id, 70))
        await one.ship(lost)
        later = await lease(lost, 2, 80)
        take(two, later, 1)
        two.close(two.open(later), charge(later, 80))
        await two.ship(lost)
        await Epochs(again, SETTINGS).begin(SECOND, "restore")
        one.shipped = two.shipped = 0
        for book in (two, one):
            assert (await book.ship(again)).fault == ""
        assert await balances(again) == await balances(lost)
        assert (await balances(again))["bucket/b/spent"] == 100
        assert await faults(again) == []


async def test_a_charge_waits_for_what_other_journals_give_back(database: Pool, database_url: str) -> None:
    """All was leased when the copy was made; what came back since is in a journal that is shipped last."""
    await sell(database, bucket("b"), granted=100)
    await began(database)
    one, two = Journal("j1"), Journal("j2", "gw-1")
    first = await lease(database, 1, 100)
    take(one, first, 1)
    await one.ship(database)
    async with restored(database, database_url) as (lost, again):
        one.add(LeaseClose(first.lease_id, 100))
        await one.ship(lost)
        second = await lease(lost, 2, 80)
        take(two, second, 1)
        two.close(two.open(second), charge(second, 60))
        await two.ship(lost)
        await Epochs(again, SETTINGS).begin(SECOND, "restore")
        one.shipped = two.shipped = 0
        reply = await two.ship(again, final=True)
        assert "waits for balance" in reply.fault
        assert 0 < reply.posted_through < len(two.data)
        assert reply == await two.ship(again, final=True), "nothing came meanwhile"
        for book in (one, two):
            assert (await book.ship(again)).fault == ""
        await Epochs(again, SETTINGS).settle(SECOND)
        assert await balances(again) == await balances(lost), "the open lease is held again"
        assert await faults(again) == []


async def test_what_waits_in_vain_is_our_loss_when_the_ledger_is_settled(database: Pool, database_url: str) -> None:
    await sell(database, bucket("b"), granted=100)
    await began(database)
    gone, book = await lease(database, 1, 100), Journal()
    async with restored(database, database_url) as (lost, again):
        elsewhere = Journal("j2")
        elsewhere.add(LeaseClose(gone.lease_id, 100))
        await elsewhere.ship(lost)
        held = await lease(lost, 2, 80)
        take(book, held, 2)
        book.close(book.open(held), charge(held, 60))
        await Epochs(again, SETTINGS).begin(SECOND, "restore")
        assert "waits for balance" in (await book.ship(again)).fault
        await Epochs(again, SETTINGS).settle(SECOND)
        assert (await book.ship(again)).fault == ""
        assert (await balances(again))["loss/unproven"] == 60
        assert await faults(again) == []


async def test_a_lease_of_a_bucket_that_was_lost_too_is_our_loss(database: Pool, database_url: str) -> None:
    await sell(database, bucket("b"))
    await began(database)
    async with restored(database, database_url) as (lost, again):
        await sell(lost, bucket("late", "acc2"))
        held = (await grant(lost, ask(1, 50, "acc2"))).leases[0]
        book = Journal()
        take(book, held, 1)
        book.close(book.open(held, account="acc2"), charge(held, 40))
        book.add(LeaseClose(held.lease_id, 10))
        await Epochs(again, SETTINGS).begin(SECOND, "restore")
        assert (await book.ship(again)).fault == ""
        left = await balances(again)
        assert (left["bucket/b/available"], left["loss/unproven"]) == (GRANTED, 40)
        assert await faults(again) == []


async def test_an_id_that_is_still_to_be_granted_is_never_registered(database: Pool) -> None:
    await sell(database, bucket("b"))
    await began(database)
    held, book = await lease(database, 1, 10), Journal()
    book.add(LeaseTaken(held.lease_id + 1, 50, "b", 2, 0, 2 * SECOND))
    await book.ship(database)
    assert (await balances(database))["bucket/b/available"] == GRANTED - 10
    assert (await lease(database, 2, 10)).lease_id == held.lease_id + 1


@asynccontextmanager
async def restored(database: Pool, database_url: str) -> AsyncGenerator[tuple[Pool, Pool]]:
    """The ledger that goes on and will be lost, and its copy of this moment."""
    await database.close()
    async with copy_of(database_url) as again:
        going_on = await open_pool(database_url)
        yield going_on, again
        await going_on.close()
