"""Commands about limits of keys and customers."""

from enum import StrEnum
from typing import Annotated

import typer

from tokenworks.cli import values
from tokenworks.cli.command import LIMIT, Columns, LimitOption, Record, Session, command, group
from tokenworks.cli.parties import EveryCustomerOption
from tokenworks.core.amounts import TOKEN

limits = group("Limits: how much a key or a customer may use in a time.")


def _window(record: Record) -> str:
    return f"rolling {record['window']}" if record["rolling"] else record["window"]


_COLUMNS: Columns = {
    "id": "id",
    "metric": "metric",
    "amount": "amount",
    "used": "used",
    "unit": "unit",
    "per": _window,
    "set (UTC)": "set_at",
}


class Metric(StrEnum):
    """What can be limited, and the weight of a customer where capacity is short."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENCY = "concurrency"
    SPEND = "spend"
    WEIGHT = "weight"


class Window(StrEnum):
    """Within what time."""

    MINUTE = "minute"
    DAY = "day"
    MONTH = "month"


@command(limits, "list")
def list_limits(
    session: Session,
    customer: EveryCustomerOption = None,
    key: Annotated[str | None, typer.Option(metavar="ID", help="Only this key.", show_default="all")] = None,
    limit: LimitOption = LIMIT,
) -> None:
    """List limits with what is used of them."""
    session.show_page("/limits", _COLUMNS, limit, customer=customer, key=key)


@command(limits, "show")
def show_limit(session: Session, limit_id: str) -> None:
    """Show one limit."""
    session.show(session.office.get(f"/limits/{limit_id}"))


@command(limits, "set")
def set_limit(
    session: Session,
    metric: Metric,
    amount: str,
    customer: Annotated[str, typer.Option(metavar="ID", help="The customer, with all its keys.")] = "",
    key: Annotated[str, typer.Option(metavar="ID", help="The key.")] = "",
    per: Annotated[Window | None, typer.Option(help="The window; none for concurrency and weight.")] = None,
    unit: Annotated[str, typer.Option(help="What is spent: token, coin, point or a currency.")] = "",
    rolling: Annotated[
        bool, typer.Option("--rolling", help="The last minute, day or 30 days, not the calendar's.")
    ] = False,
) -> None:
    """Set a limit, or another amount of one; workers follow within a second."""
    session.add(
        "/limits",
        customer=customer,
        key=key,
        metric=metric.value,
        amount=values.amount(amount, unit or TOKEN, "AMOUNT")["amount"],
        window=per.value if per else None,
        unit=unit,
        rolling=rolling,
    )


@command(limits, "remove")
def remove_limit(session: Session, limit_id: str) -> None:
    """Remove a limit; workers follow within a second."""
    session.show(session.office.delete(f"/limits/{limit_id}"))
