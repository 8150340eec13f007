"""The lease desk on the bus: requests wait in line, workers are asked to give back what others need.

A database that cannot be used is answered with a refusal and one log line; the next request tries again.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

import msgspec
import psycopg

from tokenworks.base import clock, log
from tokenworks.base.bus import Bus, BusFault, Served
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.tariff import Tariff
from tokenworks.core.wire import LEASE_RECALL, LEASE_REQUEST, Recall
from tokenworks.ledger.faults import LedgerFault
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.waiting import WaitingLine

# How many requests may wait for an answer at once.
WAITING_MAX = 4_096
RETRY_AFTER_MS = 1_000

_log = log.get(__name__)
_decode = msgspec.msgpack.Decoder(LeaseRequest).decode
_encode = msgspec.msgpack.Encoder().encode
_UNAVAILABLE = LeaseReply(
    refusal=Refusal(
        Code.LEASE_UNAVAILABLE, "The ledger cannot be reached now. Retry shortly.", retry_after_ms=RETRY_AFTER_MS
    )
)


class LeaseService:
    """Serves `wire.LEASE_REQUEST`; `start` and `stop` frame its life."""

    def __init__(self, desk: LeaseDesk, bus: Bus, tariffs: Callable[[], dict[str, Tariff]], recall_ms: int) -> None:
        self._desk = desk
        self._bus = bus
        self._served: Served | None = None
        self._tariffs = tariffs
        self._line = WaitingLine(self._grant, self._recall, recall_ms)

    async def start(self) -> None:
        """Subscribe; requests are answered from now on."""
        self._served = await self._bus.subscribe(
            LEASE_REQUEST, self._on_request, queue=LEASE_REQUEST, at_once=WAITING_MAX
        )

    async def stop(self) -> None:
        """Take no more requests and answer those that wait."""
        self._line.stop()
        if self._served:
            await self._served.finish()

    async def ask(self, request: LeaseRequest) -> LeaseReply:
        """Answer one request together with all others that wait for the transaction before to end."""
        return await self._line.ask(request)

    def came_back(self, accounts: Iterable[str]) -> None:
        """Usage of these billing accounts was posted, or leases of theirs ended: whoever waits is looked at again."""
        self._line.came_back(accounts)

    async def _on_request(self, _subject: str, payload: bytes) -> bytes:
        return _encode(await self.ask(_decode(payload)))

    async def _recall(self, recall: Recall) -> None:
        try:
            await self._bus.publish(LEASE_RECALL, _encode(recall))
        except BusFault as fault:
            _log.warning("slices could not be recalled", extra={"reason": str(fault)})

    async def _grant(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        """Whatever happens, who waits is answered, and the next are tried."""
        (replies,) = await asyncio.gather(self._granted(requests), return_exceptions=True)
        if isinstance(replies, BaseException):
            # Not a fault that is known here.
            _log.error("no leases granted", extra={"requests": len(requests)}, exc_info=replies)
            return [_UNAVAILABLE] * len(requests)
        return replies

    async def _granted(self, requests: Sequence[LeaseRequest]) -> list[LeaseReply]:
        try:
            return await self._desk.grant(requests, self._tariffs(), clock.wall_ns())
        except (psycopg.Error, LedgerFault) as fault:
            first_line = str(fault).partition("\n")[0]
            _log.error("no leases granted", extra={"requests": len(requests), "reason": first_line})
            return [_UNAVAILABLE] * len(requests)
