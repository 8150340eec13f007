"""Lease requests from the bus to the lease desk: everything that waits goes into the next transaction together.

A database that cannot be used is answered with a refusal and one log line; the next request tries again.
"""

import asyncio
from collections.abc import Callable

import msgspec
import psycopg

from tokenworks.base import clock, log
from tokenworks.base.bus import Bus, Served
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.tariff import Tariff
from tokenworks.core.wire import LEASE_REQUEST
from tokenworks.ledger.faults import LedgerFault
from tokenworks.ledger.leases import LeaseDesk

# How many requests one transaction takes together at most.
AT_ONCE = 32
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

    def __init__(self, desk: LeaseDesk, bus: Bus, tariffs: Callable[[], dict[str, Tariff]]) -> None:
        self._desk = desk
        self._bus = bus
        self._served: Served | None = None
        self._tariffs = tariffs
        self._waiting: list[tuple[LeaseRequest, asyncio.Future[LeaseReply]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribe; requests are answered from now on."""
        self._served = await self._bus.subscribe(LEASE_REQUEST, self._on_request, queue=LEASE_REQUEST, at_once=AT_ONCE)

    async def stop(self) -> None:
        """Take no more requests and answer those that wait."""
        if self._served:
            await self._served.finish()

    async def ask(self, request: LeaseRequest) -> LeaseReply:
        """Answer one request together with all others that wait for the transaction before to end."""
        answer: asyncio.Future[LeaseReply] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, answer))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await answer

    async def _on_request(self, _subject: str, payload: bytes) -> bytes:
        return _encode(await self.ask(_decode(payload)))

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
            (replies,) = await asyncio.gather(self._grant([request for request, _ in batch]), return_exceptions=True)
            if isinstance(replies, BaseException):
                # Not a fault that is known here. Who waits is answered all the same, and the next batch is tried.
                _log.error("no leases granted", extra={"requests": len(batch)}, exc_info=replies)
                replies = [_UNAVAILABLE] * len(batch)
            for (_, answer), reply in zip(batch, replies, strict=True):
                if not answer.done():
                    answer.set_result(reply)

    async def _grant(self, requests: list[LeaseRequest]) -> list[LeaseReply]:
        try:
            return await self._desk.grant(requests, self._tariffs(), clock.wall_ns())
        except (psycopg.Error, LedgerFault) as fault:
            first_line = str(fault).partition("\n")[0]
            _log.error("no leases granted", extra={"requests": len(requests), "reason": first_line})
            return [_UNAVAILABLE] * len(requests)
