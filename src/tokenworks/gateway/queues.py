"""Queues of a worker: requests that wait for a place at an endpoint of their model, and who gets the next one.

Only what carries `grid.queue` out: waiting, waking, times. A request that waits is opened and holds its reservation, so
whoever gets a place can pay; one that is refused here is closed with nothing charged, like any other refusal before
dispatch. Where nobody waits for a model nothing is done.
"""

import asyncio
from collections import Counter
from collections.abc import Sequence

from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.core.refusals import Code, Refusal
from tokenworks.core.snapshot import Endpoint
from tokenworks.core.tiers import DEFAULT, TIERS, served_as
from tokenworks.gateway.delivery import Delivery
from tokenworks.gateway.flow import Wait
from tokenworks.grid.dispatch import Board
from tokenworks.grid.queue import Ticket, TierQueue

_RETRY_MS_MIN = 1_000
_RETRY_MS_MAX = 60_000


class Turn(Ticket, kw_only=True):
    """A ticket, and the flow that waits with it."""

    answer: Wait[Endpoint | Refusal]
    endpoints: Sequence[Endpoint]
    tried: Sequence[str]
    choice: frozenset[str]


class Queues:
    """All queues of a worker, by model. `lines` are those in which somebody waits."""

    def __init__(self, settings: Settings, board: Board) -> None:
        self._board = board
        self._length_max = settings.queue_requests_max
        self._age_ns = settings.queue_age_ms * clock.MS
        self._wait_s = settings.queue_wait_ms / 1_000
        self._likely = settings.lease_likely_tokens
        self._queues: dict[str, TierQueue] = {}
        self._due: set[str] = set()
        # How many wait for which choice of endpoints, by model: mostly all for the same.
        self._choices: dict[str, Counter[frozenset[str]]] = {}
        self.lines: dict[str, TierQueue] = {}

    async def turn(self, delivery: Delivery, tried: Sequence[str]) -> Endpoint | Refusal:
        """Wait for a place at an endpoint that was not tried yet; it is to be taken at once. Refusal: `overloaded`."""
        model = delivery.request.model
        queue = self._queues.get(model)
        if queue is None:
            queue = self._queues[model] = TierQueue(self._length_max, self._age_ns)
        turn = self._turn_of(delivery, tried)
        shed = queue.push(turn)
        if shed is turn:
            return _overloaded(queue, turn)
        self.lines[model] = queue
        choices = self._choices.setdefault(model, Counter())
        choices[turn.choice] += 1
        loop = asyncio.get_running_loop()
        if isinstance(shed, Turn):
            # In a callback of its own: a fault there is not this request's.
            loop.call_soon(_give_up, queue, shed)
        timer = loop.call_later(self._wait_s, _give_up, queue, turn)
        self.freed(model)
        try:
            answer = await turn.answer
        finally:
            timer.cancel()
            queue.drop(turn)
            choices[turn.choice] -= 1
            if not choices[turn.choice]:
                del choices[turn.choice]
            if not queue.length:
                self.lines.pop(model, None)
        if delivery.ticket is None and not isinstance(answer, Refusal):
            delivery.ticket = turn
        return answer

    def freed(self, model: str) -> None:
        """There may be a place at an endpoint of the model: look soon, not within whatever just ended."""
        if model in self.lines and model not in self._due:
            self._due.add(model)
            asyncio.get_running_loop().call_soon(self._serve, model)

    def freed_all(self) -> None:
        """Endpoints have come, have rested, or may take more."""
        for model in self.lines:
            self.freed(model)

    def settle(self, ticket: Ticket, model: str, tokens: int) -> None:
        """A request that had waited is over and took so many tokens."""
        self._queues[model].correct(ticket, tokens)

    def _turn_of(self, delivery: Delivery, tried: Sequence[str]) -> Turn:
        parts, grant = delivery.reservation.parts, delivery.exchange.grant
        bought = parts[0].slice.bucket.tier if parts else DEFAULT
        likely = delivery.covered.input_max + min(delivery.covered.output_max, self._likely)
        return Turn(
            tier=served_as(bought, delivery.request.service_tier),
            account=delivery.holding.account,
            weight=grant.weight if grant is not None else 1,
            # A request that waits again, for another endpoint, is counted already.
            tokens=likely if delivery.ticket is None else 0,
            at_ns=clock.boot_ns(),
            answer=Wait(),
            endpoints=delivery.route.endpoints,
            tried=tried,
            choice=frozenset(each.id for each in delivery.route.endpoints if each.id not in tried),
        )

    def _serve(self, model: str) -> None:
        """Give free places to whose turn it is. A flow that gets one takes it before it waits again."""
        self._due.discard(model)
        queue, now_ns = self._queues[model], clock.boot_ns()
        while (turn := queue.next(now_ns)) is not None and isinstance(turn, Turn):
            if not self._give(queue, turn, now_ns):
                if len(self._choices[model]) > 1:
                    self._serve_others(queue, turn.choice, now_ns)
                return

    def _serve_others(self, queue: TierQueue, choice: frozenset[str], now_ns: int) -> None:
        """Who is next must wait for endpoints that are full; those who may go to others are not to wait for that."""
        full = {choice}
        for turn in queue.each(now_ns):
            if not isinstance(turn, Turn) or turn.is_over or turn.choice in full:
                continue
            if not self._give(queue, turn, now_ns):
                full.add(turn.choice)

    def _give(self, queue: TierQueue, turn: Turn, now_ns: int) -> bool:
        endpoint = self._board.choose(turn.endpoints, turn.tried, now_ns)
        if endpoint is None:
            return False
        queue.take(turn, now_ns)
        turn.answer.resolve(endpoint)
        return True


def _give_up(queue: TierQueue, turn: Turn) -> None:
    turn.answer.resolve(_overloaded(queue, turn))


def _overloaded(queue: TierQueue, turn: Turn) -> Refusal:
    tier = TIERS[turn.tier]
    retry_after_ms = min(max(queue.wait_ns(turn.tier) // clock.MS, _RETRY_MS_MIN), _RETRY_MS_MAX)
    text = f"There is no capacity for the tier {tier!r} now: too many requests wait. Retry later."
    return Refusal(Code.OVERLOADED, text, retry_after_ms=retry_after_ms)
