"""A plan: everything that will happen in a run, from a seed. Leaving a part of it out changes nothing of the rest.

`scene` holds who buys and sells; here are the requests, and the faults with their times. What a fault does is in
`faults`; a few kinds are not events but the conduct of a customer or a supplier, and are part of a request.
"""

from typing import Literal

import msgspec

from tokenworks.sim.chance import Chance

SECOND_NS = 1_000_000_000
MS_NS = 1_000_000

ActKind = Literal[
    "good",
    "broken before",
    "broken within",
    "silent before",
    "silent within",
    "busy",
    "refusing",
    "overlong",
    "too little",
    "too much",
    "above reservation",
    "nothing",
    "malformed",
    "unsaid",
]
LIES: tuple[ActKind, ...] = ("too little", "too much", "above reservation", "nothing", "malformed", "unsaid")
LeaveKind = Literal["", "before dispatch", "before the first byte", "after the first byte"]

# Faults that strike at a time. Those of customers and suppliers, and those of single messages, are counted too.
STRIKES = (
    "worker crash",
    "power failure",
    "long outage",
    "office crash",
    "database outage",
    "database failover",
    "restore",
    "partition",
    "partition one way",
    "bad lines",
    "clock jump",
    "office clock jump",
    "suspension",
    "disk full",
    "disk broken",
    "slow disk",
    "drain",
    "key revoked",
    "sale in mid-flight",
    "tariff change",
)
# Those that keep no worker from giving its leases back.
ORDERLY = frozenset(
    {
        "office crash",
        "database outage",
        "bad lines",
        "clock jump",
        "slow disk",
        "key revoked",
        "sale in mid-flight",
        "tariff change",
    }
)


class Act(msgspec.Struct, frozen=True):
    """What a supplier does with one attempt: tokens in groups, with a pause before each."""

    kind: ActKind
    tokens: int
    group: int
    pause_ms: int
    at: int = 0


class Ask(msgspec.Struct, frozen=True):
    """One request of a customer, with the acts of the suppliers it may reach."""

    number: int
    at_ms: int
    account: int
    model: int
    stream: bool
    choices: int
    text_bytes: int
    output_max: int
    wants_usage: bool
    acts: tuple[Act, ...]
    tries: int
    leave: LeaveKind = ""
    is_slow: bool = False
    keeps: bool = False


class Strike(msgspec.Struct, frozen=True):
    """A fault at a time. `target` is taken modulo what there is; `number` is the kind's own measure."""

    at_ms: int
    kind: str
    target: int
    for_ms: int
    number: int


class Plan(msgspec.Struct, frozen=True):
    """A run."""

    seed: int
    asks: tuple[Ask, ...]
    strikes: tuple[Strike, ...]


def plan(seed: int, requests: int) -> Plan:
    """The plan of a seed. Each seed has its own set of fault kinds: all at once would hide what few bring to light."""
    chance = Chance(seed, "plan")
    length_ms = max(2_000, requests * chance.between(12, 25))
    traits = _Traits(chance)
    asks = [_ask(Chance(seed, "ask", number), number, length_ms, traits) for number in range(requests)]
    asks.sort(key=lambda ask: (ask.at_ms, ask.number))
    kinds = chance.some(STRIKES, chance.pick((0, 150, 300, 500)))
    strikes = [
        _strike(Chance(seed, kind, place), kind, length_ms)
        for kind in kinds
        for place in range(chance.between(1, _MOST.get(kind, 4)))
    ]
    strikes.sort(key=lambda strike: (strike.at_ms, strike.kind))
    return Plan(seed, tuple(asks), tuple(strikes))


_MOST = {
    "power failure": 3,
    "long outage": 2,
    "key revoked": 3,
    "bad lines": 3,
    "office clock jump": 2,
    "database failover": 3,
    "restore": 2,
}
_LASTS_MS = {
    "long outage": (5_000, 14_000),
    "office crash": (200, 2_500),
    "database outage": (100, 1_500),
    "database failover": (50, 1_500),
    "restore": (200, 3_000),
    "suspension": (200, 6_000),
    "slow disk": (1_000, 5_000),
    "disk full": (500, 4_000),
    "disk broken": (50, 1_000),
    "bad lines": (1_000, 8_000),
}


class _Traits:
    """What is common to the requests of a seed."""

    def __init__(self, chance: Chance) -> None:
        self.bad = chance.pick((0, 50, 200))
        self.leaving = chance.pick((0, 40, 150))
        self.slow = chance.pick((0, 30))
        self.streams = chance.pick((300, 700, 950))
        self.several = chance.pick((0, 100))
        self.long = chance.pick((10, 60))
        self.rush = chance.pick((0, 300))


def _ask(chance: Chance, number: int, length_ms: int, traits: _Traits) -> Ask:
    at_ms = chance.below(length_ms)
    if chance.hits(traits.rush):
        at_ms -= at_ms % 500  # many in the same moment
    output_max = chance.pick((0, 4, 16, 60, 200, 800))
    is_long = chance.hits(traits.long)
    tokens = chance.between(60, 200) if is_long else chance.between(1, 40)
    group = max(1, tokens // chance.between(1, 5))
    leave: LeaveKind = ""
    if chance.hits(traits.leaving):
        leave = chance.pick(("before dispatch", "before the first byte", "after the first byte"))
    acts = tuple(_act(chance, traits, tokens, group, is_long) for _ in range(3))
    return Ask(
        number=number,
        at_ms=at_ms,
        account=chance.below(1 << 16),
        model=chance.below(1 << 16),
        stream=chance.hits(traits.streams),
        choices=chance.between(2, 3) if chance.hits(traits.several) else 1,
        text_bytes=chance.pick((8, 40, 120, 700)),
        output_max=output_max,
        wants_usage=chance.hits(500),
        acts=acts,
        tries=chance.between(1, 3),
        leave=leave,
        is_slow=chance.hits(traits.slow),
        keeps=chance.hits(500),
    )


def _act(chance: Chance, traits: _Traits, tokens: int, group: int, is_long: bool) -> Act:
    kind: ActKind = "good"
    if chance.hits(traits.bad):
        kind = chance.pick(
            ("broken before", "broken within", "silent before", "silent within", "busy", "refusing", "overlong", *LIES)
        )
    pause_ms = chance.between(20, 500) if is_long else chance.pick((0, 1, 5, 30))
    return Act(kind, tokens, group, pause_ms, chance.below(tokens + 1))


def _strike(chance: Chance, kind: str, length_ms: int) -> Strike:
    low, high = _LASTS_MS.get(kind, (200, 4_000))
    return Strike(
        at_ms=chance.below(length_ms + 1_000),
        kind=kind,
        target=chance.below(1 << 16),
        for_ms=chance.between(low, high),
        number=chance.below(1 << 16),
    )
