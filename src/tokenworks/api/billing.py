"""Routes of statements, bills and margin. Amounts are exact; rounding to fen is for whoever shows them."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenworks.api.commands import Command, named
from tokenworks.api.office import Office
from tokenworks.api.shapes import Amount, Body, Cursor, Limit, Number, OfCustomer, Page, Tokens, at, money, number, page
from tokenworks.api.shapes import tokens as tokens_shown
from tokenworks.core import usage
from tokenworks.core.commands import invalid
from tokenworks.shop import bills, margin, parties
from tokenworks.shop.bills import Bill
from tokenworks.shop.margin import Margin
from tokenworks.shop.period import Adjustment, Movement, Period, Purchase, UsageLine, open_period
from tokenworks.shop.period_credit import CreditLine, OwedLine

router = APIRouter(tags=["billing"])


class Span(BaseModel):
    """From a moment until before another."""

    from_: str = Field(alias="from", serialization_alias="from")
    to: str


class LineShown(BaseModel):
    """A package bought in the period; total = net + tax."""

    description: str
    order_id: str
    offer: str
    bucket_id: str
    grant: Amount
    tax_basis_points: int
    net: Amount
    tax: Amount
    total: Amount
    sold_at: str


class UsageLineShown(BaseModel):
    """What one model took from one bucket under one tariff version; paid for with the bucket, or a line of `credit`."""

    bucket_id: str
    model: str
    tariff: str
    records: int
    tokens: Tokens
    charged: Amount


class CorrectedShown(BaseModel):
    """A correction posted in the period; it lessens the bill by net and tax. `due` is owed by the customer directly."""

    correction_id: str
    kind: str
    about: str
    reason: str
    bucket_id: str | None
    replacement_id: str | None
    amount: Amount | None
    net: Amount
    tax: Amount
    due: Amount
    used_at: str
    posted_at: str


class BalanceShown(BaseModel):
    """A bucket over the period: opening + granted + refunded = spent + expired + withdrawn + closing."""

    bucket_id: str
    unit: str
    valid_to: str
    opening: Number
    granted: Number
    refunded: Number
    spent: Number
    expired: Number
    withdrawn: Number
    closing: Number


class CreditLineShown(BaseModel):
    """What was spent of a credit bucket in the period, and what it costs; total = net + tax."""

    description: str
    agreement_id: str
    offer: str
    bucket_id: str
    used: Amount
    tax_basis_points: int
    net: Amount
    tax: Amount
    total: Amount


class OwedShown(BaseModel):
    """What is owed under a credit agreement over the period: opening + used = paid + closing."""

    agreement_id: str
    opening: Amount
    used: Amount
    paid: Amount
    closing: Amount


class StatementShown(BaseModel):
    """The open period, as a bill closed now would show it."""

    customer_id: str
    legal_entity_id: str
    billing_account_id: str
    period: Span
    lines: list[LineShown]
    corrections: list[CorrectedShown]
    net: Amount
    tax: Amount
    total: Amount
    usage: list[UsageLineShown]
    records: int
    tokens: Tokens
    balances: list[BalanceShown]
    credit: list[CreditLineShown]
    owed: list[OwedShown]


class BillShown(StatementShown):
    """A closed period. `number` is consecutive within the legal entity; `cut` is the last seal covered by stream."""

    id: str
    number: str
    cut: dict[str, int]


class BillBody(Body):
    """Close this customer's period now."""

    customer: str


class MarginShown(BaseModel):
    """Revenue recognised less cost of the attempts served, in one currency."""

    revenue: Amount
    cost: Amount
    margin: Amount


class MarginsShown(MarginShown):
    """In the seller's currency, and by currency where suppliers are paid in others."""

    by_currency: list[MarginShown]


@router.get("/statements")
async def show_statement(office: Office, customer: str) -> StatementShown:
    """The period since the last bill, up to now."""
    return StatementShown.model_validate(_period(await open_period(office.pool, customer, office.wall_ns())))


@router.get("/bills")
async def list_bills(
    office: Office, customer: OfCustomer = "", limit: Limit = 50, cursor: Cursor = ""
) -> Page[BillShown]:
    """Bills, newest first."""
    async with office.pool.connection() as connection:
        return page(await bills.listed(connection, customer, limit, cursor), limit, _bill)


@router.post("/bills", status_code=201)
async def close_period(office: Office, command: Command, body: BillBody) -> BillShown:
    """Close a customer's period now and bill it."""
    bill_id = await named(office, command, "bil")
    return _bill(await bills.close(office.pool, body.customer, office.wall_ns(), bill_id))


@router.get("/bills/{bill_id}")
async def show_bill(office: Office, bill_id: str) -> BillShown:
    """One bill with all its lines."""
    async with office.pool.connection() as connection:
        return _bill(await bills.get(connection, bill_id))


@router.get("/margin")
async def show_margin(office: Office, customer: OfCustomer = "") -> MarginsShown:
    """Margin of the whole business, or of one customer."""
    async with office.pool.connection() as connection:
        if customer:
            who = await parties.customer(connection, customer)
            entity = await parties.legal_entity(connection, who.legal_entity_id)
            found = await margin.of_customer(connection, who.billing_account_id)
        else:
            entities = await parties.legal_entities(connection, 1, "")
            if not entities:
                raise invalid("There is no legal entity yet, so there is no margin.")
            entity = entities[0]
            found = await margin.of_business(connection)
    own = next((each for each in found if each.currency == entity.currency), Margin(entity.currency, 0, 0))
    return MarginsShown(**_margin(own).model_dump(), by_currency=[_margin(each) for each in found])


def _margin(found: Margin) -> MarginShown:
    return MarginShown(
        revenue=money(found.revenue, found.currency),
        cost=money(found.cost, found.currency),
        margin=money(found.margin, found.currency),
    )


def _bill(bill: Bill) -> BillShown:
    return BillShown.model_validate(
        {"id": bill.id, "number": bill.number, "cut": bill.period.cut, **_period(bill.period)}
    )


def _period(period: Period) -> dict[str, object]:
    """What a statement and a bill have in common."""
    used = sum((line.tokens for line in period.usage), usage.NONE)
    return {
        "customer_id": period.customer_id,
        "legal_entity_id": period.legal_entity_id,
        "billing_account_id": period.billing_account_id,
        "period": {"from": at(period.from_ns), "to": at(period.to_ns)},
        "lines": [_line(purchase, period.currency) for purchase in period.purchases],
        "corrections": [_corrected(line, period.currency) for line in period.corrections],
        "net": money(period.net, period.currency),
        "tax": money(period.tax, period.currency),
        "total": money(period.total, period.currency),
        "usage": [_usage(line) for line in period.usage],
        "records": sum(line.records for line in period.usage),
        "tokens": tokens_shown(used),
        "balances": [_balance(movement) for movement in period.balances],
        "credit": [_credit_line(line, period.currency) for line in period.on_credit],
        "owed": [_owed(line, period.currency) for line in period.owed],
    }


def _line(purchase: Purchase, currency: str) -> LineShown:
    return LineShown(
        description=purchase.name,
        order_id=purchase.order_id,
        offer=purchase.offer_id,
        bucket_id=purchase.bucket_id,
        grant=money(purchase.granted, purchase.unit),
        tax_basis_points=purchase.tax_basis_points,
        net=money(purchase.net, currency),
        tax=money(purchase.tax, currency),
        total=money(purchase.total, currency),
        sold_at=at(purchase.sold_at_ns),
    )


def _credit_line(line: CreditLine, currency: str) -> CreditLineShown:
    return CreditLineShown(
        description=line.name,
        agreement_id=line.order_id,
        offer=line.offer_id,
        bucket_id=line.bucket_id,
        used=money(line.used, line.unit),
        tax_basis_points=line.tax_basis_points,
        net=money(line.net, currency),
        tax=money(line.tax, currency),
        total=money(line.total, currency),
    )


def _owed(line: OwedLine, currency: str) -> OwedShown:
    return OwedShown(
        agreement_id=line.order_id,
        opening=money(line.opening, currency),
        used=money(line.used, currency),
        paid=money(line.paid, currency),
        closing=money(line.closing, currency),
    )


def _corrected(line: Adjustment, currency: str) -> CorrectedShown:
    return CorrectedShown(
        correction_id=line.correction_id,
        kind=line.kind,
        about=line.about,
        reason=line.reason,
        bucket_id=line.bucket_id,
        replacement_id=line.replacement_id,
        amount=money(line.amount, line.unit) if line.unit else None,
        net=money(line.net, currency),
        tax=money(line.tax, currency),
        due=money(line.due, currency),
        used_at=at(line.used_at_ns),
        posted_at=at(line.at_ns),
    )


def _usage(line: UsageLine) -> UsageLineShown:
    return UsageLineShown(
        bucket_id=line.bucket_id,
        model=line.model,
        tariff=line.tariff,
        records=line.records,
        tokens=tokens_shown(line.tokens),
        charged=money(line.amount, line.unit),
    )


def _balance(movement: Movement) -> BalanceShown:
    return BalanceShown(
        bucket_id=movement.bucket_id,
        unit=movement.unit,
        valid_to=at(movement.valid_to_ns),
        opening=number(movement.opening, movement.unit),
        granted=number(movement.granted, movement.unit),
        refunded=number(movement.refunded, movement.unit),
        spent=number(movement.spent, movement.unit),
        expired=number(movement.expired, movement.unit),
        withdrawn=number(movement.withdrawn, movement.unit),
        closing=number(movement.closing, movement.unit),
    )
