"""Routes of orders and balances: from the offer to what is left in its bucket."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from tokenworks.api import shapes
from tokenworks.api.commands import Command, named
from tokenworks.api.office import Connection, Office
from tokenworks.api.shapes import (
    Amount,
    At,
    Body,
    By,
    Cursor,
    Limit,
    Number,
    OfCustomer,
    Page,
    money,
    number,
    page,
    wall_ns,
)
from tokenworks.core.commands import CommandCode, CommandRefused
from tokenworks.ledger import balance, history
from tokenworks.ledger.balance import BucketBalance
from tokenworks.ledger.history import Moment
from tokenworks.shop import order_rows, parties
from tokenworks.shop.order_rows import Order, Payment
from tokenworks.shop.parties import Customer

router = APIRouter(tags=["sales"])


class OrderBody(Body):
    """Buy an offer, paid on the customer's phone bill. A credit offer says itself how it will be paid."""

    customer: str
    offer: str
    payment: Literal["carrier"] = "carrier"


class PaymentShown(BaseModel):
    """Who has taken over the price, and their name for it."""

    method: Literal["carrier"]
    payer: str
    reference: str
    amount: Amount
    paid_at: str


class OrderShown(BaseModel):
    """An order at the price it was placed at."""

    id: str
    customer_id: str
    offer_id: str
    state: Literal["accepted", "completed", "failed"]
    price: Amount
    net: Amount
    tax: Amount
    bucket_id: str | None
    payment: PaymentShown | None
    failure_code: str
    failure: str
    placed_at: str
    closed_at: str | None


class BucketShown(BaseModel):
    """A bucket: granted = available + leased + spent + expired + withdrawn. `recognised` is what is earned of `net`.

    Of kind `credit`, `granted` is the limit of one period, and `net` what the whole limit costs without tax.
    """

    bucket_id: str
    customer_id: str
    offer: str
    order_id: str
    kind: Literal["prepaid", "credit"]
    priority: int
    unit: str
    tariff: str
    tier: str
    models: list[str]
    granted: Number
    available: Number
    leased: Number
    spent: Number
    expired: Number
    withdrawn: Number
    valid_from: str
    valid_to: str
    net: Amount
    recognised: Amount


@router.get("/orders")
async def list_orders(
    office: Office, customer: OfCustomer = "", limit: Limit = 50, cursor: Cursor = ""
) -> Page[OrderShown]:
    """Orders, newest first."""
    async with office.pool.connection() as connection:
        return page(await order_rows.listed(connection, customer, limit, cursor), limit, _order)


@router.post("/orders", status_code=201)
async def place_order(office: Office, command: Command, body: OrderBody) -> OrderShown:
    """Place an order; 402 when the carrier declines."""
    order_id = await named(office, command, "ord")
    order = await office.orders.place(body.customer, body.offer, order_id)
    if order.state == "failed":
        raise CommandRefused(
            CommandCode.PAYMENT_DECLINED, f"The carrier declined: {order.failure} (order {order.id}).", "payment"
        )
    return _order(order)


@router.get("/orders/{order_id}")
async def show_order(office: Office, order_id: str) -> OrderShown:
    """One order."""
    async with office.pool.connection() as connection:
        return _order(await order_rows.get(connection, order_id))


@router.get("/balances")
async def list_balances(
    office: Office,
    customer: OfCustomer = "",
    at: At = None,
    by: By = "posted",
    limit: Limit = 50,
    cursor: Cursor = "",
) -> Page[BucketShown]:
    """A customer's whole wallet in draw order, now or as it was; without a customer, those of `limit` customers."""
    moment = Moment(wall_ns(at), by) if at else None
    async with office.pool.connection() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        if customer:
            return Page(items=await _wallet(connection, await parties.customer(connection, customer), moment))
        found = await parties.customers(connection, limit, cursor)
        wallets = [bucket for each in found for bucket in await _wallet(connection, each, moment)]
    return Page(items=wallets, next=found[-1].id if len(found) == limit else None)


async def _wallet(connection: Connection, customer: Customer, moment: Moment | None) -> list[BucketShown]:
    account = customer.billing_account_id
    buckets = await history.wallet(connection, account, moment) if moment else await balance.wallet(connection, account)
    return [_bucket(bucket, customer.id) for bucket in buckets]


def _order(order: Order) -> OrderShown:
    return OrderShown(
        id=order.id,
        customer_id=order.customer_id,
        offer_id=order.offer_id,
        state=order.state,
        price=money(order.price, order.currency),
        net=money(order.net, order.currency),
        tax=money(order.tax, order.currency),
        bucket_id=order.bucket_id,
        payment=_payment(order.payment) if order.payment else None,
        failure_code=order.failure_code,
        failure=order.failure,
        placed_at=shapes.at(order.placed_at_ns),
        closed_at=shapes.at(order.closed_at_ns) if order.closed_at_ns is not None else None,
    )


def _payment(payment: Payment) -> PaymentShown:
    return PaymentShown(
        method=payment.method,
        payer=payment.payer,
        reference=payment.reference,
        amount=money(payment.amount, payment.currency),
        paid_at=shapes.at(payment.paid_at_ns),
    )


def _bucket(held: BucketBalance, customer_id: str) -> BucketShown:
    bucket = held.bucket
    return BucketShown(
        bucket_id=bucket.id,
        customer_id=customer_id,
        offer=held.offer_id,
        order_id=held.order_id,
        kind=held.kind,
        priority=bucket.priority,
        unit=bucket.unit,
        tariff=bucket.tariff_id,
        tier=bucket.tier,
        models=list(bucket.models),
        granted=number(held.issued, bucket.unit),
        available=number(held.available, bucket.unit),
        leased=number(held.leased, bucket.unit),
        spent=number(held.spent, bucket.unit),
        expired=number(held.expired, bucket.unit),
        withdrawn=number(held.withdrawn, bucket.unit),
        valid_from=shapes.at(bucket.valid_from_ns),
        valid_to=shapes.at(bucket.valid_to_ns),
        net=money(held.net, held.currency),
        recognised=money(held.recognised, held.currency),
    )
