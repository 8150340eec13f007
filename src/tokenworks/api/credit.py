"""Routes of credit agreements and of payments received."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel

from tokenworks.api.commands import Command, once
from tokenworks.api.office import Connection, Office
from tokenworks.api.shapes import Amount, Body, Cursor, Limit, OfCustomer, Page, at, money, page, smallest
from tokenworks.base import ids
from tokenworks.shop import agreements, parties, payments
from tokenworks.shop.agreements import Agreement
from tokenworks.shop.payments import PaymentReceived

router = APIRouter(tags=["credit"])


class PeriodShown(BaseModel):
    """The newest period granted under an agreement, and how much of its limit was spent."""

    bucket_id: str
    limit: Amount
    spent: Amount
    valid_from: str
    valid_to: str


class AgreementShown(BaseModel):
    """A credit agreement; its id is that of the order it came from.

    `owed` is all that is not paid, tax included; `payable` is the part of it that can be paid, in whole cents.
    `payer_name` is how a payment by invoice names it.
    """

    id: str
    customer_id: str
    legal_entity_id: str
    offer: str
    payer: Literal["carrier", "customer"]
    payer_name: str
    state: Literal["active", "ended"]
    period: PeriodShown
    owed: Amount
    payable: Amount
    began_at: str
    ended_at: str | None


class AgreementState(Body):
    """An ended agreement grants no further period; it cannot be begun again, only ordered anew."""

    state: Literal["ended"]


class PaymentBody(Body):
    """Money that has come: `payer` is the `payer_name` of an agreement, or `carrier/…`. A reference is used once."""

    payer: str
    amount: Amount
    reference: str
    legal_entity_id: str = ""


class PaymentReceivedShown(PaymentBody):
    """A payment that was recorded."""

    id: str
    received_at: str


@router.get("/credits")
async def list_credits(
    office: Office, customer: OfCustomer = "", limit: Limit = 50, cursor: Cursor = ""
) -> Page[AgreementShown]:
    """Credit agreements with their running period and what is owed, newest first."""
    async with office.pool.connection() as connection:
        return page(await agreements.listed(connection, customer, limit, cursor), limit, _agreement)


@router.get("/credits/{agreement_id}")
async def show_credit(office: Office, agreement_id: str) -> AgreementShown:
    """One credit agreement."""
    async with office.pool.connection() as connection:
        return _agreement(await agreements.get(connection, agreement_id))


@router.patch("/credits/{agreement_id}")
async def end_credit(office: Office, command: Command, agreement_id: str, body: AgreementState) -> AgreementShown:
    """End a credit agreement: no further period is granted; what is owed stays owed."""
    del body

    async def work(connection: Connection) -> AgreementShown:
        return _agreement(await agreements.end(connection, agreement_id, office.wall_ns()))

    return await once(office, command, AgreementShown, work)


@router.get("/payments")
async def list_payments(
    office: Office,
    payer: Annotated[str, Query(max_length=200, description="only this payer's")] = "",
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[PaymentReceivedShown]:
    """Payments received, newest first."""
    async with office.pool.connection() as connection:
        return page(await payments.listed(connection, payer, limit, cursor), limit, _payment)


@router.post("/payments", status_code=201)
async def record_payment(office: Office, command: Command, body: PaymentBody) -> PaymentReceivedShown:
    """Record money that a payer has sent: less is owed, more is in clearing."""

    async def work(connection: Connection) -> PaymentReceivedShown:
        entity = (
            await parties.legal_entity(connection, body.legal_entity_id, "legal_entity_id")
            if body.legal_entity_id
            else await parties.only_legal_entity(connection)
        )
        payment = PaymentReceived(
            id=ids.new("pmt"),
            legal_entity_id=entity.id,
            payer=body.payer,
            amount=smallest(body.amount.amount, body.amount.unit, "amount"),
            currency=body.amount.unit,
            reference=body.reference,
            received_at_ns=office.wall_ns(),
        )
        return _payment(await payments.receive(connection, entity, payment))

    return await once(office, command, PaymentReceivedShown, work)


def _agreement(found: Agreement) -> AgreementShown:
    held = found.period
    return AgreementShown(
        id=found.id,
        customer_id=found.customer_id,
        legal_entity_id=found.legal_entity_id,
        offer=found.offer_id,
        payer=found.payer,
        payer_name=found.payer_name,
        state=found.state,
        period=PeriodShown(
            bucket_id=held.bucket.id,
            limit=money(held.issued, held.bucket.unit),
            spent=money(held.spent, held.bucket.unit),
            valid_from=at(held.bucket.valid_from_ns),
            valid_to=at(held.bucket.valid_to_ns),
        ),
        owed=money(found.owed, found.currency),
        payable=money(found.payable, found.currency),
        began_at=at(found.began_at_ns),
        ended_at=at(found.ended_at_ns) if found.ended_at_ns is not None else None,
    )


def _payment(payment: PaymentReceived) -> PaymentReceivedShown:
    return PaymentReceivedShown(
        id=payment.id,
        payer=payment.payer,
        amount=money(payment.amount, payment.currency),
        reference=payment.reference,
        legal_entity_id=payment.legal_entity_id,
        received_at=at(payment.received_at_ns),
    )
