"""The office's chores about epochs and silent workers, in time that the test moves."""

from collections.abc import AsyncGenerator, Generator
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from ledger.books import GRANTED, SECOND, SETTINGS, Journal, balances, bucket, charge, faults, lease, sell
from tokenworks.app.contact import Contact
from tokenworks.app.settling import Settling
from tokenworks.base import clock
from tokenworks.base.bus import Bus
from tokenworks.base.database import Pool
from tokenworks.core.journal import LeaseTaken
from tokenworks.core.wire import SiteAnswer, SiteReport
from tokenworks.ledger import epoch
from tokenworks.ledger.epoch import Epochs
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.meter.desk import Desk
from tokenworks.meter.feed import Feed
from tokenworks.meter.metrics import Metrics
from tokenworks.meter.service import Metering
from tokenworks.meter.sites import Sites


@dataclass
class Time:
    """Both clocks."""

    now_ns: int = SECOND

    def go_on(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND


@dataclass
class Chores:
    """An office's parts over a database and a bus."""

    time: Time
    pool: Pool
    metering: Metering
    settling: Settling
    contact: Contact
    sites: Sites
    registry: CollectorRegistry

    async def watch(self, seconds: int) -> None:
        """So many rounds, a second apart, in which metering can be reached."""
        for _ in range(seconds):
            await self.contact.look(is_posting=True)
            self.time.go_on(1)
        await self.contact.look(is_posting=True)

    async def now(self) -> epoch.Epoch:
        async with self.pool.connection() as conn:
            found = await epoch.current(conn)
        assert found is not None
        return found


@pytest.fixture
def time() -> Generator[Time]:
    """The clocks of this process stand still unless the test moves them."""
    moved = Time()
    with clock.replaced(lambda: moved.now_ns, lambda: moved.now_ns):
        yield moved


@pytest.fixture
async def chores(time: Time, database: Pool, bus: Bus) -> AsyncGenerator[Chores]:
    """The chores, in the ledger's first epoch, with one bucket sold."""
    registry = CollectorRegistry()
    metering = Metering(Desk(database), bus, Feed(), Metrics(registry))
    epochs, contact = Epochs(database, SETTINGS), Contact(database, bus, SETTINGS)
    settling = Settling(database, epochs, contact, LeaseDesk(database, SETTINGS), metering)
    sites = Sites(database, bus, epochs, registry)
    assert await settling.notice() == 1
    await sell(database, bucket("b"))
    yield Chores(time, database, metering, settling, contact, sites, registry)
    assert await faults(database) == []


async def test_nothing_is_reclaimed_before_metering_could_be_reached_for_long_enough(chores: Chores) -> None:
    await lease(chores.pool, 1, 100)
    chores.time.go_on(1_000)
    assert await chores.settling.reclaim() == 0, "an office that just started knows nothing of the time before"
    await chores.contact.look(is_posting=True)
    assert await chores.settling.reclaim() == 0
    await chores.watch(1)
    assert await chores.settling.reclaim() == 1
    assert (await balances(chores.pool))["bucket/b/available"] == GRANTED


async def test_while_nobody_posts_no_time_passes_for_the_silent(chores: Chores) -> None:
    await lease(chores.pool, 1, 100)
    chores.time.go_on(1_000)
    for _ in range(10):
        await chores.contact.look(is_posting=False)
        chores.time.go_on(1)
    assert await chores.settling.reclaim() == 0
    await chores.watch(1)
    assert await chores.settling.reclaim() == 1


async def test_a_worker_that_still_ships_keeps_its_leases_and_one_that_fell_silent_does_not(chores: Chores) -> None:
    book, held = Journal("e1"), await lease(chores.pool, 1, 100)
    await chores.watch(10)
    assert (await chores.metering.post(book.rest())).fault == ""
    assert await chores.settling.reclaim() == 0
    await chores.watch(2)
    book.shipped = len(book.data)
    await chores.metering.post(book.rest())
    assert await chores.settling.reclaim() == 0, "it has nothing to ship, and says so"
    book.close(book.open(held), charge(held, 5))
    await chores.metering.post(book.rest())
    await chores.watch(2)
    assert await chores.settling.reclaim() == 1
    assert (await balances(chores.pool))["bucket/b/available"] == GRANTED - 5


async def test_leases_of_a_complete_journal_end_at_once(chores: Chores) -> None:
    """The worker died before it had the answer, so that its journal does not name the lease."""
    await lease(chores.pool, 1, 100)
    assert (await chores.metering.post(Journal("e1").rest(final=True))).fault == ""
    assert await chores.settling.reclaim() == 1
    assert (await balances(chores.pool))["bucket/b/available"] == GRANTED


async def test_until_the_epoch_is_settled_nothing_expires_or_is_reclaimed(chores: Chores) -> None:
    held = await lease(chores.pool, 1, 100)
    await Epochs(chores.pool, SETTINGS).begin(chores.time.now_ns, "restore")
    await chores.watch(1)
    chores.time.go_on(2_000)
    await chores.watch(1)
    assert (await chores.settling.expire(), await chores.settling.reclaim()) == (0, 0)
    assert await chores.settling.settle() == 0, "the time that nobody looked at does not count"
    await chores.watch(3)
    assert await chores.settling.settle() == 1
    assert (await chores.now()).how == "deadline"
    assert (await chores.settling.expire(), await chores.settling.reclaim()) == (1, 1)
    assert held.lease_id > 0
    assert (await balances(chores.pool))["bucket/b/expired"] == GRANTED - 100


async def test_sites_that_have_shipped_settle_the_epoch(chores: Chores) -> None:
    first = (await chores.now()).epoch
    assert await chores.sites.take(SiteReport("s1", first)) == SiteAnswer(first)
    await Epochs(chores.pool, SETTINGS).begin(chores.time.now_ns, "failover")
    second = (await chores.now()).epoch
    assert await chores.sites.take(SiteReport("s1", first)) == SiteAnswer(second)
    assert await chores.sites.take(SiteReport("s1", second, ("j1", "j2"), ("j0",))) == SiteAnswer(second)
    chores.time.go_on(60)
    assert await chores.settling.settle() == 0
    shown = generate_latest(chores.registry).decode()
    assert 'tokenworks_journals_waiting{site="s1"} 2.0' in shown
    assert 'tokenworks_journals_damaged{site="s1"} 1.0' in shown
    for _ in range(2):
        await chores.sites.take(SiteReport("s1", second))
    assert await chores.settling.settle() == 1
    assert (await chores.now()).how == "shipped"


async def test_a_journal_posted_after_the_deadline_still_gets_what_is_there(chores: Chores) -> None:
    """Its lease is registered late; somebody else may have taken the balance meanwhile, here nobody has."""
    book = Journal("e1")
    await Epochs(chores.pool, SETTINGS).begin(chores.time.now_ns, "restore")
    await Epochs(chores.pool, SETTINGS).settle(chores.time.now_ns)
    held = await lease(chores.pool, 1, 100)
    lost = held.lease_id - 7
    book.add(LeaseTaken(lost, 50, "b", 3, 0, 2 * SECOND))
    await chores.metering.post(book.rest())
    assert (await balances(chores.pool))[f"lease/{lost}"] == 50
