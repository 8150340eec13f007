"""A delivery: the state of one request from its opening to its closing, and how it came out.

Only data and the bookkeeping of attempts. Who talks to endpoints is `dispatch` and `relay`; who takes the money is
`charge`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from tokenworks.base.config import Settings
from tokenworks.core.bounds import Need
from tokenworks.core.journal import Attempt, Ending
from tokenworks.core.purse import Reservation
from tokenworks.core.refusals import Refusal
from tokenworks.core.snapshot import Endpoint
from tokenworks.core.tariff import Tariff, cost
from tokenworks.core.usage import NONE, Reported, Tokens
from tokenworks.dialects.chat import ChatRequest
from tokenworks.dialects.other import Speech
from tokenworks.gateway.catalog import CatalogInUse, Route
from tokenworks.gateway.exchange import Exchange
from tokenworks.gateway.holding import Holding
from tokenworks.gateway.keys import Keys
from tokenworks.gateway.leases import Leases
from tokenworks.gateway.limits import LimitsInUse
from tokenworks.gateway.pools import Upstreams
from tokenworks.gateway.records import Records
from tokenworks.gateway.safety import Safety
from tokenworks.gateway.screen import Screen
from tokenworks.gateway.upstream import Sending
from tokenworks.grid.dispatch import Board
from tokenworks.grid.queue import Ticket, TierQueue


class Places(Protocol):
    """Requests that wait for a place at an endpoint; see `queues`, which knows deliveries."""

    lines: dict[str, TierQueue]
    """The models for which somebody waits."""

    async def turn(self, delivery: "Delivery", tried: Sequence[str]) -> Endpoint | Refusal:
        """Wait for a place."""
        ...

    def freed(self, model: str) -> None:
        """There may be a place."""
        ...

    def settle(self, ticket: Ticket, model: str, tokens: int) -> None:
        """A request that had waited is over."""
        ...


@dataclass(frozen=True, slots=True)
class Gateway:
    """What every request of a worker uses."""

    settings: Settings
    keys: Keys
    catalog: CatalogInUse
    leases: Leases
    records: Records
    upstreams: Upstreams
    board: Board
    limits: LimitsInUse
    queues: Places
    safety: Safety | None = None


class Tally(msgspec.Struct, eq=False):
    """What was seen of the answer so far. `surplus` was generated and not passed on; `is_cut`: we ended it."""

    output: int = 0
    surplus: int = 0
    text_bytes: int = 0
    is_cut: bool = False
    reported: Reported | None = None
    first_token_ns: int = 0
    flags: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    """How a delivery ended, and what is left to tell the customer: a refusal, or the last bytes."""

    ending: Ending
    refusal: Refusal | None = None
    status: int = 200
    body: bytes = b""


class Delivery(msgspec.Struct, eq=False):
    """One opened request. `covered` is what the reservation pays for now, `output_limit` what one choice may have at
    most. Where the reservation may grow, it covers less than that; `tariffs` are those of the admission.
    `charged` is known at its end, `ticket` if it had to wait for a place. `screen` is None where nobody judges the
    answer.
    """

    exchange: Exchange
    request: ChatRequest
    route: Route
    holding: Holding
    reservation: Reservation
    covered: Need
    output_limit: int
    opened_ns: int
    position: int
    tally: Tally
    tariffs: dict[str, Tariff]
    may_grow: bool = False
    attempts: list[Attempt] = []
    ticket: Ticket | None = None
    endpoint: Endpoint | None = None
    sending: Sending | None = None
    speech: Speech | None = None
    charged: Tokens = NONE
    screen: Screen | None = None

    @property
    def is_dispatched(self) -> bool:
        """Whether an endpoint has been sent the request and has not refused it."""
        return self.sending is not None and self.sending.sent_ns > 0

    def fields(self) -> bytes:
        """Headers that tell the customer about a limit that is less than what was asked for, or than the model has."""
        limit = self.output_limit
        if 0 < limit < (self.request.shape.output_max or self.route.model.output_max):
            return b"x-tokenworks-output-limit: %d\r\n" % limit
        return b""

    def begin_attempt(self, endpoint: Endpoint, sending: Sending, gateway: Gateway) -> None:
        """The next endpoint is tried."""
        self.endpoint, self.sending = endpoint, sending
        gateway.board.begin(endpoint.id)

    def begin_stream(self, gateway: Gateway) -> None:
        """The present attempt has brought the first of a stream."""
        if self.endpoint is not None:
            gateway.board.end_probe(self.endpoint.id)

    def end_attempt(self, gateway: Gateway, outcome: Ending, now_ns: int, tokens: Tokens = NONE) -> None:
        """The present attempt, if any, is over: what it costs us, and what the board learns from it."""
        endpoint, sending = self.endpoint, self.sending
        if endpoint is None or sending is None:
            return
        self.attempts.append(self.attempt(endpoint, sending, outcome, now_ns, tokens))
        self.endpoint = self.sending = None
        gateway.board.end(endpoint.id)
        if gateway.queues.lines:
            gateway.queues.freed(endpoint.model)
        if outcome == "finished":
            gateway.board.succeeded(endpoint.id)
        elif outcome in {"endpoint_broken", "endpoint_timeout"}:
            gateway.board.failed(endpoint.id, now_ns)

    def attempt(self, endpoint: Endpoint, sending: Sending, outcome: Ending, now_ns: int, tokens: Tokens) -> Attempt:
        """The record of an attempt as it stands."""
        opened_ns, sent_ns, first_ns = self.opened_ns, sending.sent_ns, self.tally.first_token_ns
        return Attempt(
            endpoint.id,
            endpoint.supplier_id,
            endpoint.tariff,
            endpoint.currency,
            tokens,
            cost(tokens, endpoint.rate, endpoint.rounding),
            outcome,
            sent_ns - opened_ns if sent_ns > opened_ns else 0,
            first_ns - opened_ns if first_ns else 0,
            now_ns - opened_ns,
        )
