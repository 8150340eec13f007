"""Commands that put right what was booked: refunds, packages taken back, chargebacks, write-offs, credit notes."""

from typing import Annotated

import typer

from tokenworks.cli import values
from tokenworks.cli.command import LIMIT, LimitOption, Session, command, group
from tokenworks.cli.parties import CustomerOption, EveryCustomerOption, LegalEntityOption

corrections = group("Corrections: what was put right afterwards, each with its reason; nothing booked is ever edited.")

ReasonOption = Annotated[str, typer.Option(help="Why; customers see it on statements and bills.")]
ReferenceOption = Annotated[str, typer.Option(help="Somebody else's number for it.")]
AmountOption = Annotated[str, typer.Option(help="Only this much.", show_default="all")]
UnitOption = Annotated[str, typer.Option(help="What the amount is counted in: token, coin, point or a currency.")]
CurrencyOption = Annotated[str, typer.Option(help="Currency of the amount.")]

_COLUMNS = {
    "id": "id",
    "posted (UTC)": "posted_at",
    "kind": "kind",
    "about": "about",
    "customer": "customer_id",
    "reason": "reason",
}


@command(corrections, "list")
def list_corrections(session: Session, customer: EveryCustomerOption = None, limit: LimitOption = LIMIT) -> None:
    """List corrections, newest first."""
    session.show_page("/corrections", _COLUMNS, limit, customer=customer)


@command(corrections, "show")
def show_correction(session: Session, correction_id: str) -> None:
    """Show one correction with its lines."""
    session.show(session.office.get(f"/corrections/{correction_id}"))


@command(corrections, "refund")
def refund(
    session: Session,
    request_id: str,
    reason: ReasonOption,
    amount: AmountOption = "",
    unit: UnitOption = "token",
    validity: Annotated[
        str, typer.Option(help="How long a bucket is valid that replaces an expired one, ISO 8601.")
    ] = "P1M",
    reference: ReferenceOption = "",
) -> None:
    """Give the use of one request back to its buckets, the one drawn last first."""
    session.add(
        "/corrections/refunds",
        request=request_id,
        reason=reason,
        amount=_amount(amount, unit),
        validity=validity,
        reference=reference,
    )


@command(corrections, "withdraw")
def withdraw(
    session: Session,
    bucket_id: str,
    reason: ReasonOption,
    amount: AmountOption = "",
    unit: UnitOption = "token",
    reference: ReferenceOption = "",
) -> None:
    """Cancel a package: what is unspent goes back, its share of price and tax is due to the payer."""
    session.add(
        "/corrections/withdrawals",
        bucket=bucket_id,
        reason=reason,
        amount=_amount(amount, unit),
        reference=reference,
    )


@command(corrections, "charge-back")
def charge_back(session: Session, order_id: str, reason: ReasonOption, reference: ReferenceOption = "") -> None:
    """Book that the payer took an order's price back; what was spent the customer owes directly."""
    session.add("/corrections/chargebacks", order=order_id, reason=reason, reference=reference)


@command(corrections, "write-off")
def write_off(
    session: Session,
    customer: CustomerOption,
    reason: ReasonOption,
    agreement: Annotated[
        str,
        typer.Option(metavar="ID", help="Under this credit agreement.", show_default="owed directly"),
    ] = "",
    amount: AmountOption = "",
    currency: CurrencyOption = "CNY",
    reference: ReferenceOption = "",
) -> None:
    """Give up what a customer owes directly or on credit."""
    session.add(
        "/corrections/write-offs",
        customer=customer,
        agreement=agreement,
        reason=reason,
        amount=_amount(amount, currency),
        reference=reference,
    )


@command(corrections, "settle")
def settle(
    session: Session,
    payer: Annotated[str, typer.Argument(help="As in the account's code, for example carrier/sandbox.")],
    amount: Annotated[str, typer.Option(help="How much of the refunds due.")],
    reason: ReasonOption,
    currency: CurrencyOption = "CNY",
    legal_entity: LegalEntityOption = "",
    reference: ReferenceOption = "",
) -> None:
    """Book that a payer refunded its customers and keeps as much of what it owes us."""
    session.add(
        "/corrections/refund-settlements",
        payer=payer,
        amount=_amount(amount, currency),
        reason=reason,
        legal_entity_id=legal_entity,
        reference=reference,
    )


@command(corrections, "supplier-credit")
def supplier_credit(
    session: Session,
    supplier: str,
    amount: Annotated[str, typer.Option(help="What is owed less.")],
    reason: ReasonOption,
    reference: Annotated[str, typer.Option(help="The supplier's number of the credit note.")],
    currency: CurrencyOption = "CNY",
    legal_entity: LegalEntityOption = "",
) -> None:
    """Book a supplier's credit note: less is owed, and what it served has cost less."""
    session.add(
        "/corrections/supplier-credits",
        supplier=supplier,
        amount=_amount(amount, currency),
        reason=reason,
        reference=reference,
        legal_entity_id=legal_entity,
    )


def _amount(text: str, unit: str) -> dict[str, object] | None:
    return values.amount(text, unit, "--amount") if text else None
