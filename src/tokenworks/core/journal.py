"""Journal entries: the frozen records a gateway worker writes about its requests, and what metering reads.

The journal on the worker's disk is the durable record of usage until the ledger has committed. An entry's identity is
(journal id, position). Entries are msgpack arrays with an integer tag; fields are only ever added at the end. Framing
and checksums belong to `base.journal`.
"""

from typing import Literal

import msgspec

from tokenworks.core.purse import Charge
from tokenworks.core.usage import Count, Tokens

FORMAT = 1

Basis = Literal["reported", "counted", "none"]
Ending = Literal[
    "finished",  # the endpoint ended its answer
    "refused",  # the endpoint answered with an error before any token
    "client_gone",  # the customer went away
    "endpoint_broken",  # the endpoint's answer broke off
    "endpoint_timeout",  # the endpoint fell silent
    "drained",  # the worker stopped
    "orphaned",  # the worker died; closed by its successor
]


class Head(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=0):
    """The first entry of every journal: whose it is."""

    journal_id: str
    worker: str
    started_at_ns: int
    format: int = FORMAT


class Reserved(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A part of a request's reservation."""

    lease_id: int
    bucket_id: str
    unit: str
    amount: Count


class Opening(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=1):
    """Written before the first byte goes upstream: the request, its bound and the leases it reserved from."""

    request_id: str
    opened_at_ns: int
    legal_entity_id: str
    billing_account_id: str
    key_id: str
    model: str
    stream: bool
    input_max: int
    output_max: int
    reserved: tuple[Reserved, ...]


class Attempt(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One try at one endpoint, with what it costs us. Times are durations since the request was opened."""

    endpoint_id: str
    supplier_id: str
    tariff: str
    currency: str
    tokens: Tokens
    cost: Count
    outcome: Ending
    sent_after_ns: int
    first_token_after_ns: int
    ended_after_ns: int


class Checkpoint(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=2):
    """How far a long stream has come; already rated, so that replay never rates."""

    opening: int
    counted: Tokens
    charges: tuple[Charge, ...]
    attempts: tuple[Attempt, ...]


class Closing(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=3):
    """Written before the last byte is sent to the customer: what was used and what it costs, final.

    `opening` is the position of the opening entry. `tokens` is the basis of the charges; `reported` and `counted`
    keep both counts. `flags` name what was odd.
    """

    opening: int
    closed_at_ns: int
    ending: Ending
    basis: Basis
    tokens: Tokens
    counted: Tokens
    reported: Tokens | None
    flags: tuple[str, ...]
    charges: tuple[Charge, ...]
    attempts: tuple[Attempt, ...]
    first_token_after_ns: int


class LeaseClose(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=4):
    """The worker gives a lease back: `remainder` of it was not charged. No entry after this one names the lease."""

    lease_id: int
    remainder: int


class LeaseTaken(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=5):
    """The worker received a lease of `amount`. A successor needs it to give back what a dead worker did not charge.

    The rest lets a ledger that lost the grant (a failover, a restore) register the lease again: `sequence` and
    `ordinal` name it within the worker's epoch, `use_until_ns` is in wall time.
    """

    lease_id: int
    amount: int
    bucket_id: str = ""
    sequence: int = 0
    ordinal: int = 0
    use_until_ns: int = 0


class LeaseReturn(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=6):
    """The worker gives a free part of a lease back and keeps the lease, because a running request needs the rest."""

    lease_id: int
    amount: Count


class Extension(msgspec.Struct, frozen=True, array_like=True, gc=False, tag=7):
    """The reservation of a running stream grew: all its parts and its bound from now on, instead of the opening's."""

    opening: int
    input_max: Count
    output_max: Count
    reserved: tuple[Reserved, ...]


Entry = Head | Opening | Checkpoint | Closing | LeaseClose | LeaseTaken | LeaseReturn | Extension

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Entry] = msgspec.msgpack.Decoder(Entry)

encode = _encoder.encode
decode = _decoder.decode
