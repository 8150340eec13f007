"""Queues: who is next when all endpoints of a model are full, and who goes when too many wait. Pure: times come in.

Tiers come in their order, but waiting raises: each `age_ns` is worth a tier, and a request that has waited beyond the
highest is served before all that came later. Within a tier customers share by virtual counters of tokens: the one who
has got least for his weight is next (Sheng et al., "Fairness in Serving Large Language Models", 2024). A full queue
sheds from the lowest tier, of the customer who waits with most, but leaves each tier a floor.
"""

from collections import deque
from heapq import heappop, heappush

import msgspec

from tokenworks.core.tiers import TIERS

# A token counts so much for a customer of weight 1.
_TOKEN = 1_000_000
# Each tier keeps such a part of the queue, however many of higher ones come.
_FLOOR_PART = 16
# The time between two turns follows the last ones: an eighth of the difference each time.
_PACE_PART = 8
_PACE_FIRST_NS = 1_000_000_000


class Ticket(msgspec.Struct, eq=False):
    """A request that waits. `tier` is its place among the tiers; `tokens` what it is likely to take; `rush` when it was
    served: customers are compared only with those who waited in the same one.
    """

    tier: int
    account: str
    weight: int
    tokens: int
    at_ns: int
    is_over: bool = False
    rush: int = 0


class _Tier:
    """Those of one tier that wait: by age, and by customer."""

    def __init__(self) -> None:
        self.length = self.rush = 0
        self._by_age: deque[Ticket] = deque()
        self._lines: dict[str, deque[Ticket]] = {}
        self._counters: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []
        self._last = 0

    def push(self, ticket: Ticket) -> None:
        """Another waits. Who comes after a while without asking has saved nothing: he begins with the least of those
        who wait."""
        self._by_age.append(ticket)
        line = self._lines.setdefault(ticket.account, deque())
        if not line:
            least = self._least()
            lifted = max(self._counters.get(ticket.account, 0), self._last if least is None else least)
            self._counters[ticket.account] = lifted
            heappush(self._heap, (lifted, ticket.account))
        line.append(ticket)
        self.length += 1

    def oldest(self) -> Ticket:
        """Who has waited longest; there is somebody."""
        while self._by_age[0].is_over:
            self._by_age.popleft()
        return self._by_age[0]

    def next(self) -> Ticket:
        """Who is next by fairness: the oldest of the customer who has got least; there is somebody."""
        self._least()
        return self._lines[self._heap[0][1]][0]

    def take(self, ticket: Ticket) -> None:
        """It is served: its customer has got so much more."""
        self._last = self._counters[ticket.account]
        ticket.rush = self.rush
        self.count(ticket.account, ticket.tokens, ticket.weight)
        self.drop(ticket)

    def drop(self, ticket: Ticket) -> None:
        """It waits no longer."""
        ticket.is_over = True
        self.length -= 1
        line = self._lines[ticket.account]
        line.remove(ticket)
        if not line:
            del self._lines[ticket.account]
        if not self.length:
            # Nobody is compared with anybody any more.
            self.rush += 1
            self._by_age.clear()
            self._counters.clear()
            self._heap.clear()
            self._last = 0
        elif len(self._by_age) > 2 * self.length + 16:
            self._by_age = deque(each for each in self._by_age if not each.is_over)

    def count(self, account: str, tokens: int, weight: int) -> None:
        """A customer has got so many tokens, or fewer than was thought."""
        if account in self._counters:
            self._counters[account] += tokens * (_TOKEN // weight)
            if account in self._lines:
                heappush(self._heap, (self._counters[account], account))

    def waiting(self) -> list[Ticket]:
        """All that wait."""
        return [ticket for line in self._lines.values() for ticket in line]

    def longest(self) -> tuple[int, str]:
        """The customer who waits with most, and with how many."""
        return max((len(line), account) for account, line in self._lines.items())

    def newest_of(self, account: str) -> Ticket:
        """The last that came of a customer."""
        return self._lines[account][-1]

    def waiting_of(self, account: str) -> int:
        """With how many a customer waits."""
        return len(self._lines.get(account, ()))

    def _least(self) -> int | None:
        """The least counter of those who wait; entries that no longer say how it is are dropped."""
        heap = self._heap
        while heap and (heap[0][1] not in self._lines or heap[0][0] != self._counters[heap[0][1]]):
            heappop(heap)
        return heap[0][0] if heap else None


class TierQueue:
    """The requests that wait for the endpoints of one model."""

    def __init__(self, length_max: int, age_ns: int) -> None:
        self._length_max = length_max
        self._floor = length_max // _FLOOR_PART
        self._age_ns = age_ns
        self._tiers = tuple(_Tier() for _ in TIERS)
        self._pace_ns = _PACE_FIRST_NS
        self._taken_ns = 0
        self.length = 0

    def push(self, ticket: Ticket) -> Ticket | None:
        """Let a request wait. Where that is too many, the one that must go instead: perhaps this one."""
        shed = self._to_shed(ticket) if self.length >= self._length_max else None
        if shed is ticket:
            ticket.is_over = True
            return ticket
        if shed is not None:
            self.drop(shed)
        self._tiers[ticket.tier].push(ticket)
        self.length += 1
        return shed

    def next(self, now_ns: int) -> Ticket | None:
        """Whose turn it is."""
        best: Ticket | None = None
        best_score = -1
        for place, tier in enumerate(self._tiers):
            if tier.length:
                oldest = tier.oldest()
                score = place * self._age_ns + now_ns - oldest.at_ns
                if score >= best_score:
                    best, best_score = oldest, score
        if best is None or best_score >= len(TIERS) * self._age_ns:
            return best
        return self._tiers[best.tier].next()

    def each(self, now_ns: int) -> list[Ticket]:
        """All that wait, in the order of their tiers and of their waiting; who got how much is not looked at."""
        scored = [
            (place * self._age_ns + now_ns - ticket.at_ns, ticket)
            for place, tier in enumerate(self._tiers)
            for ticket in tier.waiting()
        ]
        return [ticket for _, ticket in sorted(scored, key=lambda each: -each[0])]

    def take(self, ticket: Ticket, now_ns: int) -> None:
        """The request is served now."""
        self._tiers[ticket.tier].take(ticket)
        self.length -= 1
        if self._taken_ns:
            self._pace_ns += (now_ns - self._taken_ns - self._pace_ns) // _PACE_PART
        # A queue that has ended says nothing about the time until the next turn of another one.
        self._taken_ns = now_ns if self.length else 0

    def drop(self, ticket: Ticket) -> None:
        """The request waits no longer, and is not served. Doing it again changes nothing."""
        if not ticket.is_over:
            self._tiers[ticket.tier].drop(ticket)
            self.length -= 1
            if not self.length:
                self._taken_ns = 0

    def correct(self, ticket: Ticket, tokens: int) -> None:
        """A request that was served took so many tokens. What was counted for it may be forgotten already."""
        tier = self._tiers[ticket.tier]
        if ticket.rush == tier.rush:
            tier.count(ticket.account, tokens - ticket.tokens, ticket.weight)

    def lengths(self) -> tuple[int, ...]:
        """How many wait, by tier."""
        return tuple(tier.length for tier in self._tiers)

    def wait_ns(self, tier: int) -> int:
        """How long those of this tier and above are likely to keep the endpoints busy."""
        return sum(each.length for each in self._tiers[tier:]) * self._pace_ns

    def _to_shed(self, ticket: Ticket) -> Ticket:
        """The newest of whoever waits with most in the lowest tier that has more than its floor."""
        for place, tier in enumerate(self._tiers):
            if place == ticket.tier:
                most, account = tier.longest() if tier.length else (0, "")
                is_greater = most > tier.waiting_of(ticket.account) + 1
                return tier.newest_of(account) if is_greater else ticket
            if tier.length > self._floor:
                return tier.newest_of(tier.longest()[1])
        return ticket
