"""Commands about credit: agreements with what is owed under them, and payments received."""

from typing import Annotated

import typer

from tokenworks.cli import values
from tokenworks.cli.command import LIMIT, LimitOption, Session, command, group
from tokenworks.cli.parties import EveryCustomerOption, LegalEntityOption

credits_ = group("Credit agreements: limits that customers have by the period, and what they owe.")
payments = group("Payments received from carriers and from customers with an invoice.")

_CREDIT_COLUMNS = {
    "id": "id",
    "customer": "customer_id",
    "offer": "offer",
    "payer": "payer",
    "state": "state",
    "limit": "period.limit",
    "spent": "period.spent",
    "until (UTC)": "period.valid_to",
    "owed": "owed",
}
_PAYMENT_COLUMNS = {
    "id": "id",
    "payer": "payer",
    "amount": "amount",
    "reference": "reference",
    "received (UTC)": "received_at",
}


@command(credits_, "list")
def list_credits(session: Session, customer: EveryCustomerOption = None, limit: LimitOption = LIMIT) -> None:
    """List credit agreements with what is owed."""
    session.show_page("/credits", _CREDIT_COLUMNS, limit, customer=customer)


@command(credits_, "show")
def show_credit(session: Session, agreement_id: str) -> None:
    """Show one credit agreement."""
    session.show(session.office.get(f"/credits/{agreement_id}"))


@command(credits_, "end")
def end_credit(session: Session, agreement_id: str) -> None:
    """Grant no further period; what is owed stays owed."""
    session.show(session.office.patch(f"/credits/{agreement_id}", {"state": "ended"}))


@command(payments, "list")
def list_payments(
    session: Session,
    payer: Annotated[str | None, typer.Option(metavar="NAME", help="Only this payer's.")] = None,
    limit: LimitOption = LIMIT,
) -> None:
    """List payments received, newest first."""
    session.show_page("/payments", _PAYMENT_COLUMNS, limit, payer=payer)


@command(payments, "add")
def add_payment(
    session: Session,
    payer: Annotated[str, typer.Option(metavar="NAME", help="credit/AGREEMENT, or carrier/NAME.")],
    amount: Annotated[str, typer.Option(help="What has come, for example 12.5.")],
    reference: Annotated[str, typer.Option(metavar="TEXT", help="The payer's or the bank's name for it.")],
    currency: Annotated[str, typer.Option(help="Currency of the amount.")] = "CNY",
    legal_entity: LegalEntityOption = "",
) -> None:
    """Record money that has come; no more than is owed."""
    session.add(
        "/payments",
        payer=payer,
        amount=values.amount(amount, currency, "--amount"),
        reference=reference,
        legal_entity_id=legal_entity,
    )
