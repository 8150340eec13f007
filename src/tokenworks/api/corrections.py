"""Routes of corrections: refunds of use, packages taken back, chargebacks, write-offs, and suppliers' credit notes.

Each is a command that happens once: its answer is kept in the transaction that posts it.
"""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenworks.api.commands import Command, once
from tokenworks.api.office import Connection, Office
from tokenworks.api.shapes import Amount, Body, Cursor, Id, Limit, OfCustomer, Page, at, money, page, smallest
from tokenworks.base import ids
from tokenworks.core.commands import invalid, not_found
from tokenworks.core.corrections import Head, Line
from tokenworks.ledger import correction_rows
from tokenworks.ledger.correction_rows import Correction
from tokenworks.shop import corrections, parties
from tokenworks.shop.corrections import Ground
from tokenworks.supply import credit_notes

router = APIRouter(prefix="/corrections", tags=["corrections"])

Reason = Annotated[str, Field(max_length=500, description="why; shown on statements and bills")]
Reference = Annotated[str, Field(max_length=200, description="somebody else's number for it")]


class Grounded(Body):
    """What every correction is given."""

    reason: Reason
    reference: Reference = ""


class RefundBody(Grounded):
    """Give use back, the bucket drawn last first: all that one request was charged, or an amount of it."""

    request: Id
    amount: Amount | None = None
    validity: Annotated[str, Field(description="how long a bucket is valid that replaces an expired one")] = "P1M"


class WithdrawalBody(Grounded):
    """Take back what is unspent of a package, or an amount of it."""

    bucket: Id
    amount: Amount | None = None


class ChargebackBody(Grounded):
    """The payer took the price of an order back."""

    order: Id


class WriteOffBody(Grounded):
    """Give up what a customer owes, or an amount of it: under a credit agreement, or else directly."""

    customer: Id
    agreement: str = ""
    amount: Amount | None = None


class SettlementBody(Grounded):
    """A payer has refunded its customers and keeps as much of what it owes us."""

    payer: Id
    amount: Amount
    legal_entity_id: str = ""


class SupplierCreditBody(Grounded):
    """A supplier's credit note; `reference` is its number."""

    supplier: Id
    amount: Amount
    legal_entity_id: str = ""


class CorrectionLineShown(BaseModel):
    """One bucket's part. `revenue` was taken back; `net` and `tax` left the bucket, or are the correction's money."""

    bucket_id: str | None
    amount: Amount | None
    charge: int | None
    replacement_id: str | None
    revenue: Amount
    net: Amount
    tax: Amount
    due: Amount


class CorrectionShown(BaseModel):
    """A correction as it was posted; `about` is the request, bucket, order, customer, payer or supplier."""

    id: str
    kind: str
    legal_entity_id: str
    customer_id: str | None
    about: str
    reason: str
    reference: str
    used_at: str
    posted_at: str
    posting_id: int
    lines: list[CorrectionLineShown]


@router.get("")
async def list_corrections(
    office: Office, customer: OfCustomer = "", limit: Limit = 50, cursor: Cursor = ""
) -> Page[CorrectionShown]:
    """Corrections, newest first."""
    async with office.pool.connection() as connection:
        account = (await parties.customer(connection, customer)).billing_account_id if customer else None
        found = await correction_rows.listed(connection, account, limit, cursor)
        owners = await _owners(connection, found)
    return page(found, limit, lambda correction: _correction(correction, owners))


@router.get("/{correction_id}")
async def show_correction(office: Office, correction_id: str) -> CorrectionShown:
    """One correction with its lines."""
    async with office.pool.connection() as connection:
        found = await correction_rows.find(connection, [correction_id])
        if not found:
            raise not_found("correction", correction_id)
        return await _shown(connection, found[0])


@router.post("/refunds", status_code=201)
async def refund_usage(office: Office, command: Command, body: RefundBody) -> CorrectionShown:
    """Give the use of one request back to its buckets; expired ones are replaced."""

    async def work(connection: Connection) -> CorrectionShown:
        amount = (smallest(body.amount.amount, body.amount.unit, "amount"), body.amount.unit) if body.amount else None
        made = await corrections.refund(connection, _ground(office, body), body.request, amount, body.validity)
        return await _shown(connection, made)

    return await once(office, command, CorrectionShown, work)


@router.post("/withdrawals", status_code=201)
async def withdraw_package(office: Office, command: Command, body: WithdrawalBody) -> CorrectionShown:
    """Cancel a package, or a part of it; its share of price and tax is due back to the payer."""

    async def work(connection: Connection) -> CorrectionShown:
        amount = _in_unit(body.amount, await corrections.unit_of(connection, body.bucket))
        return await _shown(
            connection, await corrections.withdraw(connection, _ground(office, body), body.bucket, amount)
        )

    return await once(office, command, CorrectionShown, work)


@router.post("/chargebacks", status_code=201)
async def charge_back(office: Office, command: Command, body: ChargebackBody) -> CorrectionShown:
    """Book that a payer took a price back; what was spent of it the customer owes directly."""

    async def work(connection: Connection) -> CorrectionShown:
        return await _shown(connection, await corrections.charge_back(connection, _ground(office, body), body.order))

    return await once(office, command, CorrectionShown, work)


@router.post("/write-offs", status_code=201)
async def write_off(office: Office, command: Command, body: WriteOffBody) -> CorrectionShown:
    """Give up what a customer owes directly or on credit."""

    async def work(connection: Connection) -> CorrectionShown:
        customer = await parties.customer(connection, body.customer, "customer")
        currency = (await parties.legal_entity(connection, customer.legal_entity_id)).currency
        amount = _in_unit(body.amount, currency)
        ground = _ground(office, body)
        made = await corrections.write_off(connection, ground, body.customer, body.agreement, amount)
        return await _shown(connection, made)

    return await once(office, command, CorrectionShown, work)


@router.post("/refund-settlements", status_code=201)
async def settle_refund(office: Office, command: Command, body: SettlementBody) -> CorrectionShown:
    """Book that a payer has refunded its customers and keeps as much of what it owes us."""

    async def work(connection: Connection) -> CorrectionShown:
        entity = await _entity(connection, body.legal_entity_id)
        amount = smallest(body.amount.amount, body.amount.unit, "amount")
        ground = _ground(office, body)
        made = await corrections.settle_refund(connection, ground, entity, body.payer, amount, body.amount.unit)
        return await _shown(connection, made)

    return await once(office, command, CorrectionShown, work)


@router.post("/supplier-credits", status_code=201)
async def credit_supplier(office: Office, command: Command, body: SupplierCreditBody) -> CorrectionShown:
    """Book a supplier's credit note: less is owed, and what it served has cost less."""

    async def work(connection: Connection) -> CorrectionShown:
        now_ns = office.wall_ns()
        head = Head(
            id=ids.new("cor"),
            kind="supplier_credited",
            legal_entity_id=await _entity(connection, body.legal_entity_id),
            billing_account_id="",
            about=body.supplier,
            reason=body.reason,
            reference=body.reference,
            used_at_ns=now_ns,
            at_ns=now_ns,
        )
        amount = smallest(body.amount.amount, body.amount.unit, "amount")
        return await _shown(connection, await credit_notes.credit(connection, head, body.amount.unit, amount))

    return await once(office, command, CorrectionShown, work)


def _ground(office: Office, body: Grounded) -> Ground:
    return Ground(ids.new("cor"), body.reason, body.reference, office.wall_ns())


def _in_unit(amount: Amount | None, unit: str) -> int | None:
    if amount is None:
        return None
    if amount.unit != unit:
        raise invalid(f"This is counted in {unit}.", "amount")
    return smallest(amount.amount, unit, "amount")


async def _entity(connection: Connection, legal_entity_id: str) -> str:
    """The legal entity named, or the only one there is."""
    return legal_entity_id or (await parties.only_legal_entity(connection)).id


async def _owners(connection: Connection, found: list[Correction]) -> dict[str, str]:
    return await parties.names(connection, [each.head.billing_account_id for each in found])


async def _shown(connection: Connection, found: Correction) -> CorrectionShown:
    return _correction(found, await _owners(connection, [found]))


def _correction(found: Correction, owners: dict[str, str]) -> CorrectionShown:
    head = found.head
    return CorrectionShown(
        id=head.id,
        kind=head.kind,
        legal_entity_id=head.legal_entity_id,
        customer_id=owners.get(head.billing_account_id),
        about=head.about,
        reason=head.reason,
        reference=head.reference,
        used_at=at(head.used_at_ns),
        posted_at=at(head.at_ns),
        posting_id=found.posting_id,
        lines=[_line(line) for line in found.lines],
    )


def _line(line: Line) -> CorrectionLineShown:
    return CorrectionLineShown(
        bucket_id=line.bucket_id,
        amount=money(line.amount, line.unit) if line.unit else None,
        charge=line.charge,
        replacement_id=line.replacement_id,
        revenue=money(line.revenue, line.currency),
        net=money(line.net, line.currency),
        tax=money(line.tax, line.currency),
        due=money(line.due, line.currency),
    )
