"""Lending: what a worker asks the ledger for, and who gets what comes.

One lease request at a time for each line. Plenty is asked for together; of a low account the ledger is asked for one
request after the other, so that it can serve all workers in turn. A request whose answer is not known is sent again
until it is, before anything else is asked for its line.
"""

import asyncio
from collections.abc import Callable, Iterable
from itertools import count
from typing import Protocol

import msgspec

from tokenworks.base import clock
from tokenworks.base.bus import BusFault
from tokenworks.base.config import Settings
from tokenworks.core.bounds import NOTHING, Need
from tokenworks.core.journal import LeaseClose, LeaseReturn, LeaseTaken
from tokenworks.core.leasing import LeaseReply, LeaseRequest
from tokenworks.core.purse import Reservation, Slice
from tokenworks.core.refusals import Code, Refusal
from tokenworks.gateway.flow import Errands
from tokenworks.gateway.holding import Ask, Holding, Line, Sent, ahead_of
from tokenworks.shipping.office import Office

# What is left of a slice, or of its time, when the next one is asked for: a quarter.
EARLY = 4
RENEWAL_PAUSE_NS = 50 * clock.MS

_RETRY_S = 0.05
# Grants that leave a request short although they answered its own need: the ledger and we do not see the same terms.
_ROUNDS_MAX = 3
# How much longer an early slice is not asked for again where the ledger gave none: a part of a lease life.
_NONE_EARLY = 16
# Who is told to come again is told different times, so that not all come at once.
_RETRY_AFTER_MS = (1_000, 2_000, 3_000, 5_000, 8_000)
_NO_BALANCE = Refusal(
    Code.LEASE_UNAVAILABLE, "Balance cannot be reserved right now. Retry shortly.", retry_after_ms=1_000
)
_UNAVAILABLE = LeaseReply(refusal=_NO_BALANCE)
_RESERVED = Refusal(Code.BALANCE_RESERVED, "The balance is reserved by requests that are still running. Retry shortly.")

Append = Callable[[LeaseTaken | LeaseClose | LeaseReturn], bool]


class Keeper(Protocol):
    """What `Leases` does for lending."""

    def count(self, holding: Holding, model: str, need: Need, now_ns: int) -> None:
        """A reservation was made."""
        ...

    def end(self, holding: Holding, ask: Ask) -> None:
        """The ask waits no longer."""
        ...

    def watch(self, holding: Holding, now_ns: int) -> None:
        """Look at the holding when its slices lapse."""
        ...

    def keep_little(self, holding: Holding) -> None:
        """Give back what is not to be kept."""
        ...


class Lending:
    """Between the lines of all holdings and the ledger."""

    def __init__(
        self,
        office: Office,
        errands: Errands,
        append: Append,
        settings: Settings,
        worker: str,
        epoch: str,
        keeper: Keeper,
    ) -> None:
        self._office = office
        self._errands = errands
        self._append = append
        self._worker = worker
        self._epoch = epoch
        self._keeper = keeper
        self._recall_ns = settings.lease_recall_ms * clock.MS
        self._life_ns = settings.lease_use_ms * clock.MS
        self._none_early_ns = self._life_ns // _NONE_EARLY
        self._sequences = count(1)
        self._refusals = count()

    def start(self, holding: Holding, line: Line) -> None:
        """Ask the ledger for what the line wants, unless that is under way."""
        if not line.is_asking:
            line.is_asking = True
            self._errands.start(self._serve(holding, line))

    def admit(self, holding: Holding) -> None:
        """Serve who waits from the slices at hand, in order; whoever stands behind one that cannot be served waits."""
        for line in holding.lines_in_order():
            while (ask := line.first()) is not None:
                reservation = self._attempt(holding, ask)
                if reservation is None:
                    break
                self._finish(holding, ask, reservation)

    def overdue(self, holding: Holding, ask: Ask) -> None:
        """It has waited for as long as any may. While it is not known whether the account is low it waits on."""
        if not ask.is_over and clock.boot_ns() < holding.short_until_ns:
            self._finish(holding, ask, self._come_again())

    async def settle_unanswered(self, holdings: Iterable[Holding]) -> None:
        """Learn what may have been granted, without waiting for anything to come back."""
        await asyncio.gather(
            *(
                self._send(holding, line, _without_wait(line.unanswered))
                for holding in holdings
                for line in holding.lines.values()
                if line.unanswered
            )
        )

    async def _serve(self, holding: Holding, line: Line) -> None:
        """Settle what is unanswered, then ask for those that wait until none does."""
        try:
            if line.unanswered is not None:
                await self._send(holding, line, line.unanswered)
            if line.unanswered is not None:
                self._refuse(holding, line, _NO_BALANCE)
            while line.unanswered is None:
                self.admit(holding)
                ask = line.first()
                if ask is None and line.renewal is None:
                    break
                self._keeper.keep_little(holding)
                reply = await self._send(holding, line, self._request(holding, line, ask))
                await self._heed(holding, line, ask, reply)
        finally:
            line.is_asking = False
            line.renewal = None
        self._keeper.keep_little(holding)

    async def _heed(self, holding: Holding, line: Line, ask: Ask | None, reply: LeaseReply) -> None:
        """What the ledger's answer means for those that wait; `ask` is the one that was asked for."""
        now_ns, refusal = clock.boot_ns(), reply.refusal
        if refusal is None:
            self.admit(holding)
            if ask is not None and not ask.is_over:
                await self._take_what_there_is(holding, ask, reply)
            if reply.is_low:
                holding.recalled_until_ns = holding.short_until_ns = now_ns + self._recall_ns
                self._keeper.keep_little(holding)
        elif refusal.code is Code.BALANCE_RESERVED:
            holding.short_until_ns = now_ns + self._recall_ns
            for each in [each for each in line.asks if not each.is_over and each.deadline_ns <= now_ns]:
                self._finish(holding, each, self._come_again())
            if line.first() is not None:
                await asyncio.sleep(_RETRY_S)
        elif refusal.code is Code.BALANCE_USED_UP and ask is not None:
            self._refuse(holding, line, refusal, ask.least)
        else:
            self._refuse(holding, line, refusal)

    async def _send(self, holding: Holding, line: Line, sent: Sent) -> LeaseReply:
        """Send a lease request and take what is granted. As long as it is not known what was, it stays unanswered."""
        line.unanswered = sent
        try:
            reply = await self._office.lease(sent.request)
        except BusFault:
            return _UNAVAILABLE
        if reply.refusal is not None and reply.refusal.code is Code.LEASE_UNAVAILABLE:
            return reply
        line.unanswered = None
        if sent.request.early:
            line.renewal = None
            if not reply.leases:
                holding.renew_after_ns = clock.boot_ns() + self._none_early_ns
        self._take(holding, reply, sent)
        return reply

    def _take(self, holding: Holding, reply: LeaseReply, sent: Sent) -> None:
        now_ns = clock.boot_ns()
        for ordinal, lease in enumerate(reply.leases):
            # Time runs from when the request was sent: the ledger's clock started no earlier.
            use_until_ns = sent.sent_ns + lease.use_for_ns
            wall_ns = clock.wall_ns() + use_until_ns - now_ns
            self._append(
                LeaseTaken(lease.lease_id, lease.amount, lease.bucket.id, sent.request.sequence, ordinal, wall_ns)
            )
            amount = lease.amount
            held = Slice(lease.lease_id, lease.bucket, amount, amount, use_until_ns, lease.linger, used_ns=now_ns)
            held.renew_ns = use_until_ns - lease.use_for_ns // EARLY
            holding.purse.add(held)
        self._keeper.watch(holding, now_ns)

    def _request(self, holding: Holding, line: Line, ask: Ask | None) -> Sent:
        """A request for all that wait in the line; of a low account for the first of them; or for the next slice."""
        now_ns = clock.boot_ns()
        pace = holding.paces.get(line.model)
        need = likely = least = NOTHING
        wait_ns = 0
        if ask is None:
            need = line.renewal or NOTHING
        else:
            wait_ns = max(0, ask.deadline_ns - now_ns)
            lacking = self._lacking(holding, ask, ask.need)
            got = _less(ask.need, lacking)
            likely, least = _less(ask.likely, got), _less(ask.least, got)
            if now_ns < holding.short_until_ns:
                need = lacking if ask.extends else likely
            else:
                waiting = [each.need for each in line.asks if not each.is_over]
                total = Need(sum(each.input_max for each in waiting), sum(each.output_max for each in waiting))
                need = self._lacking(holding, ask, total)
        request = LeaseRequest(
            worker=self._worker,
            epoch=self._epoch,
            sequence=next(self._sequences),
            billing_account_id=holding.account,
            model=line.model,
            need=need,
            least=least,
            pace=NOTHING if line.extends else pace.need(now_ns, self._life_ns) if pace else ahead_of(need),
            likely=likely,
            free=self._free(holding, line.model, ask),
            early=ask is None,
            extends=line.extends,
            wait_ms=wait_ns // clock.MS,
        )
        return Sent(request, now_ns)

    def _free(self, holding: Holding, model: str, ask: Ask | None) -> tuple[tuple[str, int], ...]:
        """What the worker holds and nobody will bring back: what is free, and what the asking stream has."""
        free = holding.purse.free(model, clock.wall_ns(), clock.boot_ns())
        for part in ask.base.parts if ask else ():
            bucket_id = part.slice.bucket.id
            free[bucket_id] = free.get(bucket_id, 0) + part.amount
        return tuple(free.items())

    def _lacking(self, holding: Holding, ask: Ask, need: Need) -> Need:
        """What of a need the slices at hand do not cover."""
        purse = holding.purse
        trial = purse.reserve(need, ask.model, ask.tariffs, clock.wall_ns(), clock.boot_ns())
        purse.release(trial)
        return trial.short

    def _attempt(self, holding: Holding, ask: Ask) -> Reservation | None:
        """Serve an ask from the slices at hand: with all it needs; of a low account with what is likely to do.

        A stream that runs goes on with whatever there is.
        """
        if ask.extends:
            return self._grown(holding, ask, ask.need, ask.least)
        wanted = ask.likely if clock.boot_ns() < holding.short_until_ns else ask.need
        return self._grown(holding, ask, wanted, wanted)

    async def _take_what_there_is(self, holding: Holding, ask: Ask, reply: LeaseReply) -> None:
        """The ledger gave, and yet not all that the first needs. Where nothing is with others, no more is to be had:
        it gets what there is. Else what it was to get was used meanwhile, and it asks again.
        """
        now_ns = clock.boot_ns()
        holding.short_until_ns = now_ns + self._recall_ns
        found = self._attempt(holding, ask)
        came = _came(holding, reply)
        is_over = any(now_ns >= held.use_until_ns for held in came)
        if found is None and (is_over or any(held.uses for held in came)):
            await self._ask_again(holding, ask, is_over=is_over)
            return
        if found is None and not reply.elsewhere:
            found = self._grown(holding, ask, ask.need, ask.least)
        ask.rounds += 1
        if found is not None:
            self._finish(holding, ask, found)
        elif ask.rounds >= _ROUNDS_MAX:
            self._finish(holding, ask, self._come_again() if reply.elsewhere else _NO_BALANCE)

    async def _ask_again(self, holding: Holding, ask: Ask, *, is_over: bool) -> None:
        """What came for it went to those who had waited longer, or its time was over when it came (`is_over`): that
        is no word of the ledger about this one, which waits on for as long as any may.
        """
        if clock.boot_ns() >= ask.deadline_ns:
            self._finish(holding, ask, self._come_again())
        elif is_over:
            await asyncio.sleep(_RETRY_S)

    def _grown(self, holding: Holding, ask: Ask, need: Need, enough: Need) -> Reservation | None:
        """The reservation of an ask with up to `need` more, if that is `enough`."""
        purse = holding.purse
        grown = purse.extend(ask.base, need, ask.model, ask.tariffs, clock.wall_ns(), clock.boot_ns())
        short = ask.base.short
        got = Need(short.input_max - grown.short.input_max, short.output_max - grown.short.output_max)
        if got.input_max >= enough.input_max and got.output_max >= enough.output_max:
            return grown
        purse.shrink(grown, ask.base)
        return None

    def _refuse(self, holding: Holding, line: Line, refusal: Refusal, least: Need = NOTHING) -> None:
        """Refuse those of the line that need no less than that; the others may still be served."""
        for ask in [each for each in line.asks if not each.is_over]:
            if ask.least.input_max >= least.input_max and ask.least.output_max >= least.output_max:
                self._finish(holding, ask, refusal)

    def _finish(self, holding: Holding, ask: Ask, result: Reservation | Refusal) -> None:
        """The ask is decided. It is told in a callback of its own: a fault in one flow must not stop the others."""
        self._keeper.end(holding, ask)
        if isinstance(result, Reservation) and not ask.extends:
            self._keeper.count(holding, ask.model, result.covered, clock.boot_ns())
        asyncio.get_running_loop().call_soon(self._tell, holding, ask, result)

    def _tell(self, holding: Holding, ask: Ask, result: Reservation | Refusal) -> None:
        if not ask.answer(result) and isinstance(result, Reservation):
            holding.purse.shrink(result, ask.base)
            self._keeper.keep_little(holding)

    def _come_again(self) -> Refusal:
        after_ms = _RETRY_AFTER_MS[next(self._refusals) % len(_RETRY_AFTER_MS)]
        return msgspec.structs.replace(_RESERVED, retry_after_ms=after_ms)


def _came(holding: Holding, reply: LeaseReply) -> list[Slice]:
    """The slices that a reply brought just now."""
    granted = {lease.lease_id for lease in reply.leases}
    return [held for held in holding.purse.slices if held.lease_id in granted]


def _less(need: Need, got: Need) -> Need:
    return Need(max(0, need.input_max - got.input_max), max(0, need.output_max - got.output_max))


def _without_wait(sent: Sent) -> Sent:
    return Sent(msgspec.structs.replace(sent.request, wait_ms=0), sent.sent_ns)
