"""Flows: coroutines that go on in the callback of whoever resolves what they wait for."""

import asyncio
from collections import deque

import pytest

from tokenworks.gateway.flow import Flow, Interrupt, Wait, resolve_each


class Stop(Interrupt):
    """An interrupt of these tests."""


class Journey:
    """A flow that notes where it is."""

    def __init__(self) -> None:
        self.notes: list[object] = []
        self.waits = [Wait[int](), Wait[int]()]
        self.flow = Flow(self._go(), lambda: self.notes.append("end"))
        self.flow.start()

    async def _go(self) -> None:
        for wait in self.waits:
            try:
                self.notes.append(await wait)
            except (Stop, ValueError) as reason:
                self.notes.append(type(reason))


def test_goes_on_at_once() -> None:
    journey = Journey()
    assert journey.waits[0].resolve(1)
    assert journey.notes == [1]
    assert journey.waits[1].resolve(2)
    assert journey.notes == [1, 2, "end"]


def test_does_not_wait_for_what_is_there() -> None:
    journey = Journey()
    assert not journey.waits[1].resolve(2)
    journey.waits[0].resolve(1)
    assert journey.notes == [1, 2, "end"]


def test_faults_and_interrupts_are_raised_where_it_waits() -> None:
    journey = Journey()
    journey.waits[0].fail(ValueError())
    journey.flow.interrupt(Stop())
    assert journey.notes == [ValueError, Stop, "end"]
    journey.flow.interrupt(Stop())
    assert journey.notes == [ValueError, Stop, "end"]


def test_what_was_given_up_is_not_taken_up_again() -> None:
    journey = Journey()
    journey.flow.interrupt(Stop())
    assert not journey.waits[0].resolve(1)
    assert journey.notes == [Stop]
    journey.waits[1].resolve(2)


def test_the_end_is_told_when_the_flow_fails() -> None:
    ended: list[bool] = []

    async def fail() -> None:
        raise LookupError

    with pytest.raises(LookupError):
        Flow(fail(), lambda: ended.append(True)).start()
    assert ended == [True]


async def test_a_flow_that_fails_does_not_stop_the_others() -> None:
    went_on: list[int] = []
    waits = [Wait[int](), Wait[int](), Wait[int]()]

    async def go(wait: Wait[int]) -> None:
        value = await wait
        if wait is waits[0]:
            raise LookupError
        went_on.append(value)

    for wait in waits:
        Flow(go(wait), lambda: None).start()
    with pytest.raises(LookupError):
        resolve_each(deque(waits), 7)
    await asyncio.sleep(0)
    assert went_on == [7, 7]
