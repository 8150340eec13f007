"""The desk where shipments are posted: each is read as it comes, those that are read are posted turn by turn.

Several journals go into one transaction, and while one turn commits, the next is read. A database that cannot be used
is answered with a fault; the shipper keeps its bytes and comes again.
"""

import asyncio
from typing import Protocol

import psycopg

from tokenworks.base import clock, log
from tokenworks.base.database import Pool
from tokenworks.core.wire import ShipReply, ShipRequest
from tokenworks.ledger.faults import OF_ONE, LedgerFault
from tokenworks.meter import answers, posting, shipments
from tokenworks.meter.answers import Answer
from tokenworks.meter.posting import Posted
from tokenworks.meter.shipments import Shipment, ShipmentFault
from tokenworks.meter.turns import Turns, Waiting

# How many large ones may be in memory as entries: some are posted, some are read.
BACKLOG_AT_ONCE = 4

_log = log.get(__name__)


class Poster(Protocol):
    """Who posts shipments: the desk in this process, or the clerks' in theirs."""

    @property
    def is_ready(self) -> bool:
        """Whether anybody posts now."""
        ...

    async def post(self, ship: ShipRequest, *, is_watched: bool) -> Answer:
        """Post what is new in one shipment, the only one of its journal now; `is_watched` asks for events."""
        ...


class Desk:
    """Posts in this process."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._backlog = asyncio.Semaphore(BACKLOG_AT_ONCE)
        self._reading = asyncio.Lock()
        self._turns = Turns()
        self._worker: asyncio.Task[None] | None = None

    @property
    def is_ready(self) -> bool:
        """Always: a database that is away is told of in answers."""
        return True

    async def post(self, ship: ShipRequest, *, is_watched: bool) -> Answer:
        """Post one shipment. Whatever happens it is answered; after a fault nothing is claimed beyond what the shipper
        knew.
        """
        (answer,) = await asyncio.gather(self._answered(ship, is_watched), return_exceptions=True)
        if isinstance(answer, (psycopg.Error, LedgerFault)):
            return unposted(ship, f"the ledger cannot post now: {str(answer).partition(chr(10))[0]}")
        if isinstance(answer, BaseException):
            _log.error("a shipment that cannot be posted", extra={"journal": ship.journal_id}, exc_info=answer)
            return unposted(ship, f"it cannot be posted: {answer!r}")
        return answer

    async def _answered(self, ship: ShipRequest, is_watched: bool) -> Answer:
        return answers.of(await self._post(ship), is_watched=is_watched)

    async def _post(self, ship: ShipRequest) -> Posted:
        if not ship.frames and not ship.final:
            return Posted(await posting.told(self._pool, ship))
        try:
            if not ship.bytes_behind:
                return await self._posted(await shipments.read(ship))
            async with self._backlog:
                # One after another: the first is whole sooner, and what waits for its turn at the loop less long.
                async with self._reading:
                    shipment = await shipments.read(ship)
                return await self._posted(shipment)
        except ShipmentFault as fault:
            return Posted(await posting.refused(self._pool, ship, str(fault)))

    async def _posted(self, shipment: Shipment) -> Posted:
        """Wait for a turn and its commit."""
        waiting = Waiting(shipment, asyncio.get_running_loop().create_future())
        self._turns.add(waiting)
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await waiting.answer

    async def _work(self) -> None:
        while turn := self._turns.next():
            await self._answer(turn)

    async def _answer(self, turn: list[Waiting]) -> None:
        """Post a turn. What one journal breaks in the ledger must not keep the others out: then each goes alone."""
        post = posting.post_shipments(self._pool, [each.shipment for each in turn], clock.wall_ns())
        (posted,) = await asyncio.gather(post, return_exceptions=True)
        if isinstance(posted, OF_ONE) and len(turn) > 1:
            for each in turn:
                await self._answer([each])
        elif isinstance(posted, BaseException):
            for each in turn:
                _settle(each, posted)
        else:
            for each, answer in zip(turn, posted, strict=True):
                _settle(each, answer)


def unposted(ship: ShipRequest, fault: str) -> Answer:
    """Nothing is known of what became of it; whoever shipped it comes again."""
    return Answer(ShipReply(ship.from_position, fault))


def _settle(waiting: Waiting, answer: Posted | BaseException) -> None:
    if waiting.answer.done():
        return
    if isinstance(answer, BaseException):
        waiting.answer.set_exception(answer)
    else:
        waiting.answer.set_result(answer)
