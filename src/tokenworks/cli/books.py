"""Commands about what was used and what it came to: balances, usage, bills, ledger accounts, margin."""

from enum import StrEnum
from typing import Annotated

import typer

from tokenworks.cli.command import LIMIT, Columns, LimitOption, Record, Session, command, group
from tokenworks.cli.parties import CustomerOption, EveryCustomerOption


class By(StrEnum):
    """By which time something counts as past."""

    POSTED = "posted"
    USED = "used"


class Span(StrEnum):
    """Lengths of time."""

    HOUR = "hour"
    DAY = "day"


AtOption = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="As it was at this time (RFC 3339).", show_default="now")
]
ByOption = Annotated[By, typer.Option(help="With --at: what was posted until then, or what was used until then.")]

balances = group("Balances: the buckets of customers and what is left in them.")
usage = group("Usage records: one for every request.")
bills = group("Bills: closed periods, and the statement of the open one.")
accounts = group("Accounts of the ledger.")
epochs = group("Ledger epochs: what failovers and restores lost, and whether it is made good.")

_EPOCH_COLUMNS = {
    "epoch": "epoch",
    "why": "why",
    "timeline": "timeline",
    "started (UTC)": "started_at",
    "settled": "settled",
    "settled at (UTC)": "settled_at",
    "sites": "sites",
}
_BALANCE_COLUMNS = {
    "bucket": "bucket_id",
    "offer": "offer",
    "kind": "kind",
    "unit": "unit",
    "granted": "granted",
    "available": "available",
    "leased": "leased",
    "spent": "spent",
    "expired": "expired",
    "withdrawn": "withdrawn",
    "valid to (UTC)": "valid_to",
}


def _charged(record: Record) -> str:
    return ", ".join(f"{charge['amount']['amount']} {charge['amount']['unit']}" for charge in record["charges"])


def _read(record: Record) -> int:
    return record["tokens"]["input"] + record["tokens"]["cached_input"] + record["tokens"]["cache_write"]


def _written(record: Record) -> int:
    return record["tokens"]["output"] + record["tokens"]["reasoning"]


_USAGE_COLUMNS: Columns = {
    "request": "request_id",
    "closed (UTC)": "closed_at",
    "model": "model",
    "read": _read,
    "written": _written,
    "basis": "basis",
    "ending": "ending",
    "flags": "flags",
    "charged": _charged,
}
_SUMMARY_COLUMNS: Columns = {
    "from (UTC)": "from",
    "customer": "customer_id",
    "model": "model",
    "requests": "requests",
    "tokens": "tokens.total",
    "unit": "unit",
    "charged": "charged",
    "revenue": "revenue",
    "cost": "cost",
}
_BILL_COLUMNS = {
    "id": "id",
    "number": "number",
    "customer": "customer_id",
    "from (UTC)": "period.from",
    "to (UTC)": "period.to",
    "net": "net",
    "tax": "tax",
    "total": "total",
}
_ACCOUNT_COLUMNS = {"account": "code", "balance": "balance", "legal entity": "legal_entity_id"}


@command(balances, "list")
def list_balances(
    session: Session,
    customer: EveryCustomerOption = None,
    at: AtOption = None,
    by: ByOption = By.POSTED,
    limit: LimitOption = LIMIT,
) -> None:
    """List buckets: granted = available + leased + spent + expired + withdrawn."""
    session.show_page("/balances", _BALANCE_COLUMNS, limit, customer=customer, at=at, by=by.value)


@command(balances, "show")
def show_balance(session: Session, bucket_id: str) -> None:
    """Show one bucket."""
    session.show(session.find("/balances", "bucket_id", bucket_id))


@command(usage, "list")
def list_usage(
    session: Session,
    customer: EveryCustomerOption = None,
    before: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only records closed before this time (RFC 3339).")
    ] = None,
    limit: LimitOption = LIMIT,
) -> None:
    """List usage records, newest first."""
    entries = list(session.office.items("/usage", limit, customer=customer, before=before))
    session.show_list("usage", entries, _USAGE_COLUMNS)


@command(usage, "show")
def show_usage(session: Session, request_id: str) -> None:
    """Show one usage record with its charges by bucket and its attempts."""
    session.show(session.find("/usage", "request_id", request_id, request=request_id))


@command(usage, "summary")
def summarise_usage(
    session: Session,
    by: Annotated[Span, typer.Option(help="How long a span is, in UTC.")] = Span.DAY,
    customer: EveryCustomerOption = None,
    begin: Annotated[
        str | None, typer.Option("--from", metavar="TIME", help="Closed from this time on (RFC 3339).")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="TIME", help="Closed before this time.")] = None,
) -> None:
    """Add up usage by hour or day, customer, model and unit: requests, tokens, charges, revenue, cost."""
    query = {"from": begin, "to": to, "by": by.value, "customer": customer}
    session.show_list("usage", session.office.get("/usage/summary", **query)["items"], _SUMMARY_COLUMNS)


@command(bills, "list")
def list_bills(session: Session, customer: EveryCustomerOption = None, limit: LimitOption = LIMIT) -> None:
    """List bills."""
    session.show_page("/bills", _BILL_COLUMNS, limit, customer=customer)


@command(bills, "show")
def show_bill(session: Session, bill_id: str) -> None:
    """Show one bill with its lines."""
    session.show(session.office.get(f"/bills/{bill_id}"))


@command(bills, "add")
def add_bill(session: Session, customer: CustomerOption) -> None:
    """Close a customer's period now and bill it."""
    session.add("/bills", customer=customer)


@command(bills, "statement")
def show_statement(session: Session, customer: CustomerOption) -> None:
    """Show the open period: purchases, usage, charges by bucket."""
    session.show(session.office.get("/statements", customer=customer))


@command(accounts, "list")
def list_accounts(
    session: Session,
    prefix: Annotated[str, typer.Option(help="Only codes that begin so, for example payable/.")] = "",
    at: AtOption = None,
    by: ByOption = By.POSTED,
) -> None:
    """List the ledger's accounts and balances."""
    entries = session.office.get("/ledger/accounts", prefix=prefix, at=at, by=by.value)["items"]
    session.show_list("accounts", entries, _ACCOUNT_COLUMNS)


@command(accounts, "margin")
def show_margin(session: Session, customer: EveryCustomerOption = None) -> None:
    """Show revenue, cost and margin as the ledger has them."""
    session.show(session.office.get("/margin", customer=customer))


@command(epochs, "list")
def list_epochs(session: Session) -> None:
    """List the ledger's epochs; leases are granted while the newest is settled."""
    session.show_list("/ledger/epochs", session.office.get("/ledger/epochs")["items"], _EPOCH_COLUMNS)


@command(epochs, "begin")
def begin_epoch(session: Session) -> None:
    """Begin an epoch, after a restore that the office cannot notice by itself."""
    session.add("/ledger/epochs")


@command(epochs, "settle")
def settle_epoch(session: Session) -> None:
    """Settle the epoch without the sites that have not shipped their journals; what they have may be our loss."""
    session.add("/ledger/epochs/settle")
