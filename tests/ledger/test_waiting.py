"""The waiting line: first come, first served, nobody forgotten, and few decisions for many that wait."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import virtual_time
from ledger.books import ask
from tokenworks.core.leasing import RESERVED, LeaseReply, LeaseRequest
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.wire import Recall
from tokenworks.ledger.waiting import AT_ONCE, WaitingLine

GRANTED = LeaseReply()
WAIT = LeaseReply(refusal=RESERVED)
AWAY = Refusal(Code.LEASE_UNAVAILABLE, "The ledger cannot be reached now.")


@dataclass
class Desk:
    """Grants as many requests as there are `places`; `decided` are the sequences of each decision.

    `is_away`: it cannot tell.
    """

    places: int = 0
    decided: list[list[int]] = field(default_factory=list)
    recalls: list[Recall] = field(default_factory=list)
    release: asyncio.Event | None = None
    is_away: bool = False

    async def grant(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        self.decided.append([request.sequence for request in requests])
        places, self.places = self.places, max(0, self.places - len(requests))
        if self.release is not None:
            await self.release.wait()
        if self.is_away:
            return [LeaseReply(refusal=AWAY)] * len(requests)
        return [GRANTED if place < places else WAIT for place in range(len(requests))]

    async def recall(self, recall: Recall) -> None:
        self.recalls.append(recall)

    def line(self) -> WaitingLine:
        return WaitingLine(self.grant, self.recall, 10_000)


def waits(line: WaitingLine, *requests: LeaseRequest) -> list[asyncio.Task[LeaseReply]]:
    return [asyncio.create_task(line.ask(request)) for request in requests]


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def wants(sequence: int, **more: object) -> LeaseRequest:
    return ask(sequence, 10, **({"wait_ms": 60_000} | more))  # pyright: ignore[reportArgumentType]


async def test_who_waits_is_served_in_order_when_something_comes_back() -> None:
    desk = Desk()
    line = desk.line()
    asked = waits(line, wants(1))
    await settled()
    asked += waits(line, *(wants(number) for number in range(2, 6)))
    await settled()
    assert desk.decided == [[1]]
    desk.places = 2
    line.came_back({"acc", "another"})
    await settled()
    assert desk.decided[1] == [1, 2, 3, 4, 5]
    assert [task.done() for task in asked] == [True, True, False, False, False]
    line.stop()
    assert [(await task).refusal for task in asked] == [None, None, RESERVED, RESERVED, RESERVED]


async def test_streams_that_run_go_first_and_do_not_wait_behind_others() -> None:
    desk = Desk()
    line = desk.line()
    (first,) = waits(line, wants(1))
    await settled()
    (running,) = waits(line, wants(2, extends=True))
    await settled()
    assert desk.decided == [[1], [2]]
    desk.places = 1
    line.came_back({"acc"})
    await settled()
    assert desk.decided[2] == [2, 1]
    assert (running.done(), first.done()) == (True, False)
    line.stop()
    await first


async def test_who_may_not_wait_is_answered_at_once() -> None:
    desk = Desk()
    line = desk.line()
    assert (await line.ask(wants(1, wait_ms=0))).refusal == RESERVED
    assert (await asyncio.wait_for(line.ask(wants(2, wait_ms=1)), 5)).refusal == RESERVED


async def test_no_refusal_without_a_decision() -> None:
    """It may be a request that was granted, and whose answer was lost."""
    desk = Desk()
    line = desk.line()
    (first,) = waits(line, wants(1))
    await settled()
    (again,) = waits(line, wants(2, wait_ms=1))
    desk.places = 1
    assert (await asyncio.wait_for(again, 5)).refusal is None
    assert desk.decided == [[1], [2]]
    line.stop()
    await first


async def test_what_came_back_during_a_decision_is_not_missed() -> None:
    desk = Desk(release=asyncio.Event())
    line = desk.line()
    (first,) = waits(line, wants(1))
    await settled()
    desk.places = 1
    line.came_back({"acc"})
    assert desk.release is not None
    desk.release.set()
    assert (await asyncio.wait_for(first, 5)).refusal is None
    assert desk.decided == [[1], [1]]


async def test_the_same_request_twice_is_one_that_waits() -> None:
    desk = Desk()
    line = desk.line()
    asked = waits(line, wants(1), wants(1))
    await settled()
    asked += waits(line, wants(1))
    desk.places = 1
    line.came_back({"acc"})
    assert {reply.refusal for reply in await asyncio.gather(*asked)} == {None}
    assert desk.decided == [[1], [1]]


async def test_a_worker_that_stops_hears_at_once() -> None:
    desk = Desk()
    line = desk.line()
    (first,) = waits(line, wants(1))
    await settled()
    assert (await line.ask(wants(1, wait_ms=0))).refusal == RESERVED
    assert (await first).refusal == RESERVED


def test_a_herd_costs_few_decisions_and_one_recall() -> None:
    # In virtual time: on a slow machine the line's own timer would look again meanwhile.
    virtual_time.run(_a_herd())


async def _a_herd() -> None:
    desk = Desk()
    line = desk.line()
    asked = waits(line, *(wants(number) for number in range(500)))
    await settled()
    assert len(desk.decided) <= -(-500 // AT_ONCE)
    assert desk.recalls == [Recall("acc", "gw-0")]
    decided = len(desk.decided)
    waits_too = waits(line, *(wants(number) for number in range(500, 600)))
    await settled()
    assert len(desk.decided) == decided
    line.stop()
    assert {(await task).refusal for task in asked + waits_too} == {RESERVED}


def test_early_requests_are_decided_together_or_with_the_next_that_cannot_wait() -> None:
    async def run() -> None:
        desk = Desk(places=100)
        line = desk.line()
        asked = waits(line, ask(1, 10, early=True), ask(2, 10, early=True))
        await settled()
        assert desk.decided == []
        await virtual_time.passes(60)
        assert desk.decided == [[1, 2]]
        asked += waits(line, ask(3, 10, early=True))
        await settled()
        asked += waits(line, wants(4))
        await settled()
        assert desk.decided == [[1, 2], [3, 4]]
        asked += waits(line, ask(5, 10, early=True))
        await settled()
        line.stop()
        assert [await each for each in asked] == [GRANTED] * 5
        assert (await line.ask(ask(6, 10, early=True))) == GRANTED

    virtual_time.run(run())


async def test_other_accounts_and_models_do_not_wait_behind() -> None:
    desk = Desk()
    line = desk.line()
    asked = waits(line, wants(1), wants(2, account="other"))
    await settled()
    assert desk.decided == [[1, 2]]
    desk.places = 1
    line.came_back({"other"})
    assert (await asyncio.wait_for(asked[1], 5)).refusal is None
    line.stop()
    await asked[0]


async def test_a_no_stays_a_no_for_who_asks_again_under_the_same_name() -> None:
    """A repeated message that arrives after the answer must not be granted what nobody waits for."""
    desk = Desk()
    line = desk.line()
    (asked,) = waits(line, wants(1))
    await settled()
    line.stop()
    assert (await asked).refusal == RESERVED
    desk.places = 1
    assert (await line.ask(wants(1))).refusal == RESERVED
    assert (await line.ask(wants(1, wait_ms=0))).refusal == RESERVED
    assert desk.decided == [[1]]
    assert (await line.ask(wants(2))).refusal is None


async def test_what_the_ledger_could_not_tell_is_asked_again() -> None:
    desk = Desk(is_away=True)
    line = desk.line()
    assert (await line.ask(wants(1))).refusal == AWAY
    desk.is_away, desk.places = False, 1
    assert (await line.ask(wants(1))).refusal is None
