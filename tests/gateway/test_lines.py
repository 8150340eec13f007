"""Who waits in several lines of one account: the oldest is served first, and nobody is refused for being overtaken."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import virtual_time
from gateway_bench import Bench, bench
from stand_in_office import ACCOUNT, LIFE_NS, StandInOffice, bucket
from tokenworks.base import clock
from tokenworks.core.bounds import Need
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.purse import Reservation
from tokenworks.core.refusals import Code, Refusal
from tokenworks.gateway.flow import Flow

# What every request here reserves, at one token a token.
NEED = Need(80, 20)
WHOLE = 100


@dataclass
class Office(StandInOffice):
    """Answers lease requests for a model that is in `held` when its event is set; `lives_ns` are those of the next."""

    held: dict[str, asyncio.Event] = field(default_factory=dict)
    lives_ns: list[int] = field(default_factory=list)

    async def lease(self, request: LeaseRequest) -> LeaseReply:
        if request.model in self.held:
            await self.held[request.model].wait()
        self.life_ns = self.lives_ns.pop(0) if self.lives_ns else LIFE_NS
        return await super().lease(request)


@dataclass
class Asked:
    """Requests of an account, told apart by what they are called; `order` is that of their answers."""

    gateway: Bench
    order: list[str] = field(default_factory=list)
    results: dict[str, Reservation | Refusal] = field(default_factory=dict)
    answer: asyncio.Event = field(default_factory=asyncio.Event)

    def begin(self, name: str, model: str) -> None:
        async def flow() -> None:
            leases, tariffs = self.gateway.gateway.leases, self.gateway.gateway.catalog.tariffs
            self.results[name] = await leases.reserve(leases.holding(ACCOUNT), NEED, 1, model, tariffs)
            self.order.append(name)
            self.answer.set()

        Flow(flow(), lambda: None).start()

    async def end(self, name: str) -> None:
        """It is over, and nothing was charged; what goes back is posted."""
        leases, result = self.gateway.gateway.leases, self.results[name]
        assert isinstance(result, Reservation)
        leases.settle(leases.holding(ACCOUNT), result, ())
        leases.give_back(leases.holding(ACCOUNT), clock.boot_ns())
        await self.gateway.gateway_turn()
        await self.gateway.ship()

    def code(self, name: str) -> Code | None:
        result = self.results[name]
        return result.code if isinstance(result, Refusal) else None

    async def answered(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.order) < count:
                self.answer.clear()
                await self.answer.wait()


def office(balance: int) -> Office:
    made = Office()
    made.give(balance, bucket(models=()))
    return made


async def test_what_comes_goes_to_who_has_waited_longest_whatever_the_model(tmp_path: Path) -> None:
    there = office(WHOLE)
    there.let_wait()
    async with bench(tmp_path, office=there, lease_wait_ms=5_000) as gateway:
        asked = Asked(gateway)
        asked.begin("running", "m")
        await asked.answered(1)
        asked.begin("older", "x")
        asked.begin("younger", "m")
        await gateway.gateway_turn()
        await asked.end("running")
        await asked.answered(2)
        await asked.end("older")
        await asked.answered(3)
        assert asked.order == ["running", "older", "younger"]
        assert set(map(asked.code, asked.order)) == {None}


async def test_who_asks_again_because_others_were_served_is_not_refused(tmp_path: Path) -> None:
    """Four older requests for another model take what was asked for, one after the other; their own leases are late."""
    there = office(5 * WHOLE)
    there.held["slow"] = asyncio.Event()
    async with bench(tmp_path, office=there, lease_wait_ms=5_000) as gateway:
        asked = Asked(gateway)
        for number in range(4):
            asked.begin(f"older {number}", "slow")
        asked.begin("last", "m")
        await asked.answered(5)
        assert asked.order[-1] == "last"
        assert asked.code("last") is None
        there.held["slow"].set()


def test_slices_whose_time_was_over_on_the_way_are_asked_for_again(tmp_path: Path) -> None:
    """At the end of a bucket's validity the ledger grants what lapses before it arrives."""

    async def run() -> None:
        there = office(10 * WHOLE)
        there.lives_ns = [0, 0, 0, 0]
        async with bench(tmp_path, office=there, lease_wait_ms=1_000) as gateway:
            asked = Asked(gateway)
            asked.begin("late", "m")
            await asked.answered(1)
            assert asked.code("late") is None
            assert len(there.asked) == 5

    virtual_time.run(run())


def test_slices_that_always_lapse_on_the_way_are_not_asked_for_without_end(tmp_path: Path) -> None:
    async def run() -> None:
        there = office(100 * WHOLE)
        there.lives_ns = [0] * 100
        async with bench(tmp_path, office=there, lease_wait_ms=1_000) as gateway:
            asked = Asked(gateway)
            asked.begin("never", "m")
            await asked.answered(1)
            assert asked.code("never") is Code.BALANCE_RESERVED
            assert len(there.asked) < 30

    virtual_time.run(run())
