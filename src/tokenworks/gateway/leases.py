"""Leases: the purses of all accounts a worker serves, filled from the ledger before a request needs more, or when.

A request whose slices suffice reserves at once. Others wait in line, streams that run before new ones, and `lending`
asks the ledger for them. Slices go back when their time is over, when nobody uses them, and when others need them.
Reserving, splitting and releasing are `core.purse`'s; what to grant is the ledger's decision.
"""

import asyncio
import heapq
from itertools import count

from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.core.bounds import NOTHING, Need
from tokenworks.core.journal import LeaseClose, LeaseReturn
from tokenworks.core.purse import Charge, Purse, Reservation
from tokenworks.core.refusals import Refusal
from tokenworks.core.tariff import Tariff
from tokenworks.core.wire import Recall
from tokenworks.gateway.flow import Errands, Wait
from tokenworks.gateway.holding import Ask, Holding, Line, Pace
from tokenworks.gateway.lending import EARLY, RENEWAL_PAUSE_NS, Append, Lending
from tokenworks.shipping.office import Office


class Leases:
    """All holdings of a worker, by billing account; with `lending`, the only one that changes purses."""

    def __init__(
        self, office: Office, errands: Errands, append: Append, settings: Settings, *, worker: str, epoch: str
    ) -> None:
        self._append = append
        self._worker = worker
        self._life_ns = settings.lease_use_ms * clock.MS
        self._idle_ns = settings.lease_idle_ms * clock.MS
        self._recall_ns = settings.lease_recall_ms * clock.MS
        self._wait_ms = settings.lease_wait_ms
        self._likely_tokens = settings.lease_likely_tokens
        self._lending = Lending(office, errands, append, settings, worker, epoch, self)
        self._holdings: dict[str, Holding] = {}
        self._due: list[tuple[int, int, Holding]] = []
        self._turns = count()

    def holding(self, account: str) -> Holding:
        """What is held for the account."""
        found = self._holdings.get(account)
        if found is None:
            found = self._holdings[account] = Holding(account, Purse())
        return found

    async def reserve(
        self,
        holding: Holding,
        need: Need,
        choices: int,
        model: str,
        tariffs: dict[str, Tariff],
        *,
        is_visible: bool = False,
    ) -> Reservation | Refusal:
        """Reserve the need, asking the ledger for what is missing.

        The reservation may cover less output than needed: for a visible stream as much as is likely to do, and for
        any request what there is, at least one token for each choice, where no more is to be had. Refusals:
        `balance_used_up`, `no_matching_bucket`, `balance_reserved` after waiting, `lease_unavailable`.
        """
        now_ns = clock.boot_ns()
        reservation = self.at_once(holding, need, model, tariffs, now_ns, clock.wall_ns())
        if reservation is not None:
            return reservation
        wait: Wait[Reservation | Refusal] = Wait()
        ask = Ask(
            model,
            Reservation((), need, need),
            need,
            self._likely(holding, need, choices, model) if is_visible else need,
            Need(need.input_max, min(choices, need.output_max)),
            tariffs,
            wait.resolve,
            now_ns + self._wait_ms * clock.MS,
        )
        self._wait_in_line(holding, ask)
        try:
            return await wait
        finally:
            self.end(holding, ask)

    def at_once(
        self, holding: Holding, need: Need, model: str, tariffs: dict[str, Tariff], now_ns: int, wall_ns: int
    ) -> Reservation | None:
        """Reserve all of the need from what is held; None where that does not suffice, or others wait for it."""
        if holding.waiting and now_ns < holding.short_until_ns:
            return None
        reservation = holding.purse.reserve(need, model, tariffs, wall_ns, now_ns)
        if reservation.short is not NOTHING and reservation.short != NOTHING:
            holding.purse.release(reservation)
            return None
        self.count(holding, model, need, now_ns)
        last = reservation.parts[-1].slice
        if last.linger and (EARLY * last.free < last.leased or now_ns > last.renew_ns):
            self._renew(holding, model, need, now_ns)
        return reservation

    def extend(self, holding: Holding, ask: Ask) -> None:
        """More for a stream that runs: its ask is answered at once from own slices, or when the ledger has answered."""
        self._wait_in_line(holding, ask)

    def settle(self, holding: Holding, reservation: Reservation, charges: tuple[Charge, ...]) -> None:
        """Take the charges out of the reservation and release the rest."""
        holding.purse.settle(reservation, charges)

    def learn(self, holding: Holding, model: str, written: int) -> None:
        """An answer of the model ended by itself, with so many output tokens for each choice."""
        pace = holding.paces.get(model)
        if pace is not None:
            pace.learn(written)

    def give_back(self, holding: Holding, now_ns: int) -> None:
        """Close slices that are not worth keeping, unless somebody waits here for what they hold. To be called after
        the closing that last named them was written.
        """
        if holding.waiting and now_ns >= holding.recalled_until_ns:
            if not holding.is_tended:
                holding.is_tended = True
                asyncio.get_running_loop().call_soon(self._tend, holding)
            return
        self._return(holding, now_ns)

    def recall(self, recall: Recall) -> None:
        """Another worker needs balance of the account: what is free here goes back, for a while all that gets free."""
        holding = self._holdings.get(recall.billing_account_id)
        if holding is None:
            return
        now_ns = clock.boot_ns()
        holding.short_until_ns = now_ns + self._recall_ns
        # The first that waits is ours: what gets free here may go to it at once.
        holding.recalled_until_ns = 0 if recall.worker == self._worker else holding.short_until_ns
        self._return(holding, now_ns)

    def tick(self) -> None:
        """Close slices whose time is over or that are idle, and forget accounts that nobody used for a lease life."""
        now_ns = clock.boot_ns()
        while self._due and self._due[0][0] <= now_ns:
            due_ns, _, holding = heapq.heappop(self._due)
            if due_ns != holding.due_ns:
                continue  # it was looked at, or is to be, at another time
            holding.due_ns = 0
            self._return(holding, now_ns, has_lapsed=True)
            for line in holding.lines.values():
                if line.unanswered or line.first() is not None:
                    self._lending.start(holding, line)
            if holding.is_needed() or now_ns - holding.active_ns < self._life_ns:
                self.watch(holding, now_ns)
            else:
                del self._holdings[holding.account]

    async def close_all(self) -> None:
        """The worker stops, no request runs and no errand: give everything back, what may have been granted too."""
        await self._lending.settle_unanswered(self._holdings.values())
        for holding in self._holdings.values():
            for held in list(holding.purse.slices):
                if self._append(LeaseClose(held.lease_id, held.free)):
                    holding.purse.remove(held)

    # --- for `lending`

    def count(self, holding: Holding, model: str, need: Need, now_ns: int) -> None:
        """A reservation was made."""
        holding.active_ns = now_ns
        pace = holding.paces.get(model)
        if pace is None:
            pace = holding.paces[model] = Pace(now_ns)
        pace.add(need, now_ns, self._life_ns)

    def end(self, holding: Holding, ask: Ask) -> None:
        """The ask waits no longer. Doing it again changes nothing."""
        if not ask.is_over:
            ask.is_over = True
            holding.waiting -= 1
            if ask.timer is not None:
                ask.timer.cancel()

    def watch(self, holding: Holding, now_ns: int) -> None:
        """Look at the holding when its first slice lapses or is idle, or after a while; not later than was meant."""
        times = [
            each
            for held in holding.purse.slices
            for each in (held.use_until_ns, held.used_ns + self._idle_ns)
            if each > now_ns
        ]
        due_ns = min(times, default=now_ns + min(self._life_ns, self._idle_ns))
        if holding.due_ns == 0 or due_ns < holding.due_ns:
            holding.due_ns = due_ns
            heapq.heappush(self._due, (due_ns, next(self._turns), holding))

    def keep_little(self, holding: Holding) -> None:
        """Give back what is not to be kept: what came for customers who have left, fragments of a low account."""
        self._return(holding, clock.boot_ns())

    # --- inside

    def _likely(self, holding: Holding, need: Need, choices: int, model: str) -> Need:
        pace = holding.paces.get(model)
        one = pace.likely(self._likely_tokens) if pace else self._likely_tokens
        return Need(need.input_max, min(need.output_max, one * choices))

    def _wait_in_line(self, holding: Holding, ask: Ask) -> None:
        line = holding.line(ask.model, extends=ask.extends)
        line.asks.append(ask)
        holding.waiting += 1
        ask.timer = asyncio.get_running_loop().call_later(self._wait_ms / 1000, self._lending.overdue, holding, ask)
        self._lending.admit(holding)
        if not ask.is_over:
            self._start(holding, line)

    def _renew(self, holding: Holding, model: str, need: Need, now_ns: int) -> None:
        """Ask for the next slice in the background, unless it is here already or the account is low."""
        if now_ns < holding.renew_after_ns or now_ns < holding.short_until_ns:
            return
        holding.renew_after_ns = now_ns + RENEWAL_PAUSE_NS
        wall_ns = clock.wall_ns()
        for held in holding.purse.slices:
            is_fresh = now_ns <= held.renew_ns and EARLY * held.free >= held.leased
            if is_fresh and held.linger and held.usable(model, wall_ns, now_ns):
                return
        line = holding.line(model, extends=False)
        line.renewal = need
        self._start(holding, line)

    def _start(self, holding: Holding, line: Line) -> None:
        self.watch(holding, clock.boot_ns())
        self._lending.start(holding, line)

    def _tend(self, holding: Holding) -> None:
        """Balance got free while requests wait for it here."""
        holding.is_tended = False
        self._lending.admit(holding)
        self._return(holding, clock.boot_ns())

    def _return(self, holding: Holding, now_ns: int, *, has_lapsed: bool = False) -> None:
        """Journal what goes back: slices not worth keeping; of a low account all that is idle.

        Where somebody waits for the balance, here or elsewhere, free parts of slices in use go back too: what the
        ledger is asked for is then all that a request needs, and all that is free is there.
        """
        purse = holding.purse
        is_low = now_ns < holding.short_until_ns
        if is_low or not holding.waiting:
            idle = purse.returnable(now_ns, now_ns if is_low else now_ns - self._idle_ns)
        else:
            idle = [held for held in purse.slices if held.is_unused and now_ns >= held.use_until_ns]
        for held in idle:
            if self._append(LeaseClose(held.lease_id, held.free)):
                purse.remove(held)
        is_wanted = now_ns < holding.recalled_until_ns or (is_low and holding.waiting > 0)
        if is_wanted or has_lapsed:
            for held in purse.spare(now_ns, keep=not is_wanted):
                if self._append(LeaseReturn(held.lease_id, held.free)):
                    purse.give_back(held, held.free)
