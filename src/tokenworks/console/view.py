"""What the live page shows, as the records that travel to the browser in JSON.

Amounts travel as exact decimal text with their unit, because a browser's numbers are floats. Times are RFC 3339 text or
milliseconds since the request was opened. Nothing is decided or read here.
"""

from typing import Literal

import msgspec

from tokenworks.core import amounts

Stage = Literal["opened", "closed", "posted"]


class Amount(msgspec.Struct, frozen=True):
    """`Amount("0.000056038", "CNY")`, `Amount("61", "token")`."""

    amount: str
    unit: str


def amount(parts: int, unit: str) -> Amount:
    """An amount in the smallest parts of its unit, made ready for the browser."""
    return Amount(amounts.exact(parts, unit), unit)


class Operator(msgspec.Struct, frozen=True):
    """Who sells."""

    legal_entity: str


class Customer(msgspec.Struct, frozen=True):
    """The customer whose key the page uses."""

    id: str
    name: str
    billing_account_id: str


class Bucket(msgspec.Struct, frozen=True):
    """One bucket of the wallet: granted = available + leased + spent + expired + withdrawn."""

    id: str
    offer: str
    unit: str
    granted: str
    available: str
    leased: str
    spent: str
    expired: str
    withdrawn: str
    valid_to: str


class BillLine(msgspec.Struct, frozen=True):
    """One line of the bill: a package, or use that is paid for."""

    text: str
    total: Amount


class Bill(msgspec.Struct, frozen=True):
    """The bill as it would be if the period were closed now."""

    period_from: str
    lines: tuple[BillLine, ...]
    net: Amount
    tax: Amount
    total: Amount
    tokens: int


class Supplier(msgspec.Struct, frozen=True):
    """What a supplier is owed."""

    id: str
    name: str
    payable: Amount


class Margin(msgspec.Struct, frozen=True):
    """Revenue recognised by use, less what the served attempts cost, in one currency."""

    revenue: Amount
    cost: Amount
    margin: Amount


class Tokens(msgspec.Struct, frozen=True):
    """Token counts in their disjoint classes."""

    input: int
    cached_input: int
    cache_write: int
    output: int
    reasoning: int


class Charge(msgspec.Struct, frozen=True):
    """One line of a record's charge."""

    bucket_id: str
    tariff: str
    amount: Amount


class Record(msgspec.Struct, frozen=True):
    """A usage record at a stage of its life. What is not known yet at that stage is absent or empty."""

    request_id: str
    stage: Stage
    model: str
    opened_at: str
    reserved: tuple[Amount, ...] = ()
    tokens: Tokens | None = None
    basis: str = ""
    ending: str = ""
    flags: tuple[str, ...] = ()
    charges: tuple[Charge, ...] = ()
    costs: tuple[Amount, ...] = ()
    first_token_ms: int | None = None
    duration_ms: int | None = None
    posted_ms: int | None = None
    posting_id: int | None = None


class Check(msgspec.Struct, frozen=True):
    """One invariant and whether it holds."""

    name: str
    ok: bool
    detail: str


class Verification(msgspec.Struct, frozen=True):
    """The result of checking every invariant once."""

    ok: bool
    checks: tuple[Check, ...]
    took_ms: int
    at: str


class State(msgspec.Struct, frozen=True):
    """Everything the page shows but the verification, read in one look."""

    operator: Operator
    customer: Customer
    wallet: tuple[Bucket, ...]
    bill: Bill
    suppliers: tuple[Supplier, ...]
    margins: tuple[Margin, ...]
    records: tuple[Record, ...]
