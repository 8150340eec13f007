"""The waiting line: lease requests in the order in which they came, until slices come back or their time is over.

What waits is decided on again when somebody says that balance of its account came back, and every now and then, should
that have been missed. Streams that run go first; of the others none of an account and model overtakes another, so a
herd that waits costs one decision, not one for each. A no stays a no: nothing is granted to a request that comes again
when its worker has gone on. Knows no database and no bus; what to grant is the desk's.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import count

import msgspec

from tokenworks.base import clock
from tokenworks.core.leasing import RESERVED, LeaseReply, LeaseRequest
from tokenworks.core.refusals import Code
from tokenworks.core.wire import Recall

# How many requests are decided on together at most.
AT_ONCE = 128
_LOOK_AGAIN_S = 0.5
# How long a request for which nobody waits is left for others to come: it takes as many statements for one as for ten.
_EARLY_S = 0.05

Grant = Callable[[Sequence[LeaseRequest]], Awaitable[list[LeaseReply]]]
_Name = tuple[str, str, int]
_WAIT = LeaseReply(refusal=RESERVED, elsewhere=True)
# Longer than a message is on its way, however late.
_NO_FOR_NS = 10 * clock.SECOND


class _Turn(msgspec.Struct, eq=False):
    """A request that waits for its answer. `is_late`: it waits no longer for anything to come back.

    None is answered that was never decided on: it may be one that comes again because the answer to it was lost.
    """

    number: int
    request: LeaseRequest
    answer: asyncio.Future[LeaseReply]
    is_late: bool
    is_decided: bool = False
    timer: asyncio.TimerHandle | None = None

    @property
    def line(self) -> tuple[str, str]:
        return (self.request.billing_account_id, self.request.model)

    def finish(self, reply: LeaseReply) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if not self.answer.done():
            self.answer.set_result(reply)


class _No(msgspec.Struct, frozen=True):
    """An answer without leases, as it was given."""

    reply: LeaseReply
    until_ns: int


class WaitingLine:
    """All requests that wait. `recall` is called, now and then, for an account whose slices others need."""

    def __init__(self, grant: Grant, recall: Callable[[Recall], Awaitable[None]], recall_ms: int) -> None:
        self._grant = grant
        self._recall = recall
        self._recall_pause_ns = recall_ms * clock.MS // 2
        self._recalled: dict[str, tuple[str, int]] = {}
        self._numbers = count()
        self._ready: list[_Turn] = []
        self._early: list[_Turn] = []
        self._gathering: asyncio.TimerHandle | None = None
        self._parked: dict[str, list[_Turn]] = {}
        self._moved: set[str] = set()
        self._names: dict[_Name, _Turn] = {}
        self._noes: dict[_Name, _No] = {}
        self._worker: asyncio.Task[None] | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._stopped = False

    async def ask(self, request: LeaseRequest) -> LeaseReply:
        """Answer one request, together with all others that wait for the decision before to be made."""
        name = (request.worker, request.epoch, request.sequence)
        if name in self._noes:
            return self._noes[name].reply
        turn = self._names.get(name)
        if turn is not None and turn.request == request:
            return await asyncio.shield(turn.answer)
        if turn is not None and request.wait_ms == 0:
            self._hurry(turn)
        turn = self._turn(request)
        self._names[name] = turn
        try:
            return await asyncio.shield(turn.answer)
        finally:
            if self._names.get(name) is turn:
                del self._names[name]
                self._remember(name, turn)

    def came_back(self, accounts: Iterable[str]) -> None:
        """Balance of these billing accounts can be had again, or it is now certain that it cannot."""
        for account in accounts:
            self._moved.add(account)
            self._ready += self._parked.pop(account, ())
        self._start()

    def stop(self) -> None:
        """Nobody waits any longer."""
        self._stopped = True
        for turn in [turn for turns in self._parked.values() for turn in turns]:
            self._hurry(turn)
        self._gathered()
        if self._looking is not None:
            self._looking.cancel()

    def _remember(self, name: _Name, turn: _Turn) -> None:
        """A no stays a no for a while: the request may come once more, late, when its worker waits for it no longer
        and would never know what it was granted. What the ledger could not tell is no answer.
        """
        if not turn.answer.done() or turn.answer.cancelled():
            return
        reply, now_ns = turn.answer.result(), clock.boot_ns()
        while self._noes and next(iter(self._noes.values())).until_ns <= now_ns:
            del self._noes[next(iter(self._noes))]
        is_unknown = reply.refusal is not None and reply.refusal.code is Code.LEASE_UNAVAILABLE
        if not reply.leases and not is_unknown:
            self._noes[name] = _No(reply, now_ns + _NO_FOR_NS)

    def _turn(self, request: LeaseRequest) -> _Turn:
        answer: asyncio.Future[LeaseReply] = asyncio.get_running_loop().create_future()
        is_late = self._stopped or request.wait_ms == 0
        turn = _Turn(next(self._numbers), request, answer, is_late)
        if request.early and not self._stopped:
            self._gather(turn)
        elif self._is_behind(turn):
            self._park(turn)
        else:
            self._ready.append(turn)
            self._start()
        return turn

    def _gather(self, turn: _Turn) -> None:
        """Decide on it with the next that cannot wait, or with all that came in a named time."""
        self._early.append(turn)
        if self._gathering is None:
            self._gathering = asyncio.get_running_loop().call_later(_EARLY_S, self._gathered)

    def _gathered(self) -> None:
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None
        self._ready += self._early
        self._early.clear()
        self._start()

    def _is_behind(self, turn: _Turn) -> bool:
        """Whether another of its account and model has waited for longer."""
        return not (turn.is_late or turn.request.extends) and any(
            each.line == turn.line and each.number < turn.number and not each.request.extends
            for each in self._parked.get(turn.request.billing_account_id, ())
        )

    def _start(self) -> None:
        if self._ready and (self._worker is None or self._worker.done()):
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        while self._ready:
            self._gathered()
            self._ready.sort(key=lambda turn: (not turn.request.extends, turn.number))
            batch: list[_Turn] = []
            ready, self._ready = self._ready[:AT_ONCE], self._ready[AT_ONCE:]
            for turn in ready:
                if self._is_behind(turn):
                    self._park(turn)
                else:
                    batch.append(turn)
            self._moved.clear()
            if not batch:
                continue
            replies = await self._grant([turn.request for turn in batch])
            decided = list(zip(batch, replies, strict=True))
            # Those that have to wait come first: the others are told whether somebody does.
            for turn, reply in sorted(decided, key=lambda each: not _is_reserved(each[1])):
                self._answer(turn, reply)
            for account in dict.fromkeys(turn.request.billing_account_id for turn in batch):
                await self._call_back(account)

    def _answer(self, turn: _Turn, reply: LeaseReply) -> None:
        """Answer, or let it wait; what came back while it was decided on is looked at again."""
        turn.is_decided = True
        if not _is_reserved(reply):
            is_low = any(
                other.request.worker != turn.request.worker
                for other in self._parked.get(turn.request.billing_account_id, ())
            )
            turn.finish(msgspec.structs.replace(reply, is_low=True) if is_low else reply)
        elif turn.is_late:
            turn.finish(reply)
        elif turn.request.billing_account_id in self._moved:
            self._ready.append(turn)
        else:
            self._park(turn)

    def _park(self, turn: _Turn) -> None:
        """Wait for something to come back, for as long as the request may."""
        loop = asyncio.get_running_loop()
        if turn.timer is None:
            turn.timer = loop.call_later(turn.request.wait_ms / 1000, self._hurry, turn)
        self._parked.setdefault(turn.request.billing_account_id, []).append(turn)
        if self._looking is None:
            self._looking = loop.call_later(_LOOK_AGAIN_S, self._look_again)

    def _hurry(self, turn: _Turn) -> None:
        """Its time is over: what waits is answered now, what is being decided on as soon as it is."""
        turn.is_late = True
        account = turn.request.billing_account_id
        parked = self._parked.get(account, [])
        if turn not in parked:
            return
        parked.remove(turn)
        if not parked:
            del self._parked[account]
        if turn.is_decided:
            turn.finish(_WAIT)
        else:
            self._ready.append(turn)
            self._start()

    def _look_again(self) -> None:
        self._looking = None
        self.came_back(list(self._parked))

    async def _call_back(self, account: str) -> None:
        """Ask for what workers hold, on behalf of the first that waits: when that is another one, and again in time."""
        parked = self._parked.get(account)
        if not parked:
            self._recalled.pop(account, None)
            return
        first, now_ns = min(parked, key=lambda turn: turn.number).request.worker, clock.boot_ns()
        worker, at_ns = self._recalled.get(account, ("", 0))
        if worker != first or now_ns - at_ns >= self._recall_pause_ns:
            self._recalled[account] = (first, now_ns)
            await self._recall(Recall(account, first))


def _is_reserved(reply: LeaseReply) -> bool:
    return reply.refusal is not None and reply.refusal.code is Code.BALANCE_RESERVED
