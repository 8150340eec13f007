"""Planted bugs: each a small patch, switched on by name, that makes one function of the product subtly wrong.

A bug of the ledger's tables is planted into the store that stands for them. `test_planted` has a seed that finds
each; `python tests/sim/search.py` looks for such seeds.
"""
# ruff: noqa: ARG005 - a wrong variant need not look at what the right one looks at

import asyncio
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from tokenworks.base import clock, journal_frames, journal_reader
from tokenworks.base.journal_writer import JournalWriter
from tokenworks.core import journal, purse, usage
from tokenworks.core.amounts import MILLION, divide
from tokenworks.core.bounds import Need
from tokenworks.core.journal import Closing, LeaseClose
from tokenworks.core.leasing import LeaseReply
from tokenworks.core.purse import Purse, Slice
from tokenworks.core.tariff import Rate
from tokenworks.core.usage import Tokens
from tokenworks.dialects import reading
from tokenworks.gateway import charge, pipeline
from tokenworks.gateway.holding import Sent
from tokenworks.gateway.keys import Keys
from tokenworks.gateway.lending import Lending
from tokenworks.gateway.records import Records
from tokenworks.shipping import succession
from tokenworks.shipping.shipper import Shipper

Plant = Callable[[], contextlib.AbstractContextManager[None]]
BUGS: dict[str, Plant] = {}
REQUESTS = 120
# Few reservations come in the last moment of a lease.
MORE_REQUESTS = {"a lease's time is measured from the reply": 400}


@contextlib.contextmanager
def rebound(target: Any, name: str, value: Any) -> Generator[None]:
    """Something of the product under its name, replaced."""
    before = target.__dict__[name] if isinstance(target, type) else getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, before)


def bug(name: str, target: Any, attribute: str) -> Callable[[Callable[[Any], Any]], Plant]:
    """Register a bug: the function decorated makes the wrong variant out of the right one."""

    def register(make: Callable[[Any], Any]) -> Plant:
        def plant() -> contextlib.AbstractContextManager[None]:
            right = target.__dict__[attribute]
            function = right.fget if isinstance(right, property) else right
            wrong = make(function)
            return rebound(target, attribute, property(wrong) if isinstance(right, property) else wrong)

        BUGS[name] = plant
        return plant

    return register


# --- the purse and prices


@bug("the rest of a reservation is not released", Purse, "settle")
def _(right: Any) -> Any:
    def settle(self: Purse, reservation: Any, charges: Any) -> None:
        right(self, reservation, charges)
        taken = {each.lease_id: each.amount for each in charges}
        for part in reservation.parts:
            part.slice.free -= (part.amount - taken.get(part.slice.lease_id, 0)) // 2

    return settle


@bug("a slice is closed while a request runs on it", Purse, "returnable")
def _(_right: Any) -> Any:
    def returnable(self: Purse, mono_ns: int, idle_since_ns: int) -> list[Slice]:
        return [held for held in self.slices if mono_ns >= held.use_until_ns or held.used_ns <= idle_since_ns]

    return returnable


@bug("validity is not looked at when reserving", Slice, "usable")
def _(_right: Any) -> Any:
    def usable(self: Slice, model: str, now_ns: int, mono_ns: int) -> bool:
        return self.free > 0 and mono_ns < self.use_until_ns and self.bucket.matches(model, self.bucket.valid_from_ns)

    return usable


@bug("a slice is used past its time", Slice, "usable")
def _(_right: Any) -> Any:
    return lambda self, model, now_ns, mono_ns: self.free > 0 and self.bucket.matches(model, now_ns)


@bug("each charge is rounded up", purse, "cost")
def _(_right: Any) -> Any:
    def cost(tokens: Tokens, rate: Rate, _rounding: str) -> int:
        total = sum(count * price for count, price in zip(tokens.each(), rate.each(), strict=True))
        return divide(total, MILLION, "up")

    return cost


@bug("the bound takes the cheaper class", Rate, "dearest_written")
def _(_right: Any) -> Any:
    return lambda self: self.input


@bug("cached tokens are charged twice", reading, "from_openai")
def _(right: Any) -> Any:
    def from_openai(prompt: int, completion: int, cached: int = 0, reasoning: int = 0) -> usage.Reported:
        found = right(prompt, completion, cached, reasoning)
        return usage.Reported(found.tokens + Tokens(input=cached), found.fault) if not found.fault else found

    return from_openai


# --- charging


@bug("a report above the reservation is believed", charge, "plausible")
def _(_right: Any) -> Any:
    return lambda reported, input_max, output_max, counted: "usage_malformed" if reported.fault else ""


@bug("a customer who leaves pays nothing", charge, "measure")
def _(right: Any) -> Any:
    def measure(ending: str, *args: Any, is_dispatched: bool) -> Any:
        return right(ending, *args, is_dispatched=is_dispatched and ending != "client_gone")

    return measure


@bug("a draining worker charges nothing", charge, "measure")
def _(right: Any) -> Any:
    def measure(ending: str, *args: Any, is_dispatched: bool) -> Any:
        return right(ending, *args, is_dispatched=is_dispatched and ending != "drained")

    return measure


@bug("a request is charged before it is dispatched", charge, "measure")
def _(right: Any) -> Any:
    return lambda ending, *args, is_dispatched: right(ending, *args, is_dispatched=True)


@bug("several choices are reserved for as one", pipeline, "clip")
def _(_right: Any) -> Any:
    return lambda covered, choices: (Need(covered.input_max, covered.output_max), covered.output_max)


# --- leases at the worker


@bug("a lease's time is measured from the reply", Lending, "_take")
def _(right: Any) -> Any:
    def take(self: Lending, holding: Any, reply: LeaseReply, sent: Sent) -> None:
        right(self, holding, reply, Sent(sent.request, clock.boot_ns()))

    return take


@bug("an unanswered lease request is forgotten", Lending, "_send")
def _(right: Any) -> Any:
    async def send(self: Lending, holding: Any, line: Any, sent: Sent) -> Any:
        reply = await right(self, holding, line, sent)
        line.unanswered = None
        return reply

    return send


@bug("the sequence of a lease request is used twice", Lending, "_request")
def _(right: Any) -> Any:
    def request(self: Lending, *args: Any) -> Sent:
        made = right(self, *args)
        return Sent(msgspec.structs.replace(made.request, sequence=made.request.sequence // 2 + 1), made.sent_ns)

    return request


@bug("a lease that was taken is not written down", Records, "append")
def _(right: Any) -> Any:
    def append(self: Records, entry: Any) -> bool:
        return True if isinstance(entry, journal.LeaseTaken) else right(self, entry)

    return append


# --- the journal


@bug("entries are written late", Records, "_schedule")
def _(_right: Any) -> Any:
    def schedule(self: Any) -> None:
        gate, self._gate = self._gate, type(self._gate)()
        asyncio.get_running_loop().call_soon(gate.open)
        asyncio.get_running_loop().call_later(0.1, self._flush)

    return schedule


@bug("the last byte does not wait for the disk", Records, "durable")
def _(_right: Any) -> Any:
    def durable(self: Records) -> Any:
        return self.written()

    return durable


@bug("bytes that are not durable are shipped", Shipper, "__init__")
def _(right: Any) -> Any:
    def init(self: Shipper, office: Any, settings: Any, folder: Path, **more: Any) -> None:
        start = more["start"]
        through = more["through"]
        more["through"] = lambda: max(through(), journal_reader.valid_end(folder, start) if start == 0 else 0)
        right(self, office, settings, folder, **more)

    return init


@bug("a sync does not reach the disk", JournalWriter, "sync")
def _(_right: Any) -> Any:
    def sync(self: Any) -> None:
        if self._fault:
            raise journal_frames.JournalFault(self._fault)
        self.synced = self.written

    return sync


# --- succession


@bug("the last checkpoint is dropped", succession, "_orphan")
def _(right: Any) -> Any:
    return lambda position, last, now_ns: right(position, None, now_ns)


@bug("orphans are not closed", succession, "left_open")
def _(right: Any) -> Any:
    def left_open(entries: Iterable[Any], now_ns: int) -> Iterator[Any]:
        return (entry for entry in right(entries, now_ns) if not isinstance(entry, Closing))

    return left_open


@bug("what was charged is given back as well", succession, "_subtract")
def _(_right: Any) -> Any:
    return lambda leases, closing: None


@bug("leases of the dead are not given back", succession, "left_open")
def _(right: Any) -> Any:
    def left_open(entries: Iterable[Any], now_ns: int) -> Iterator[Any]:
        for entry in right(entries, now_ns):
            yield LeaseClose(entry.lease_id, entry.remainder + 1) if isinstance(entry, LeaseClose) else entry

    return left_open


# --- keys


@bug("a revoked key is remembered", Keys, "forget")
def _(_right: Any) -> Any:
    return lambda self, changed: None
