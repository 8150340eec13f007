"""The sandbox carrier: a carrier's billing API to try the product with. It stands for somebody else's system.

It speaks the shapes of `shop.carrier` from the other side, keeps its own two tables, and charges phone lines up to a
monthly limit. Numbers that end in 0000 have no limit left, numbers that end in 0001 are unknown lines; any other number
is a line. A payment is made once for each `clientCorrelator`.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import httpx2
import msgspec
from fastapi import APIRouter, FastAPI, Request, Response
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.base import clock, ids
from tokenworks.base.database import Pool
from tokenworks.core import amounts
from tokenworks.shop.carrier import (
    TIMEOUT_S,
    AmountTransaction,
    Carrier,
    CarrierError,
    ChargingInformation,
    CreatePayment,
    Payment,
    PaymentAmount,
    decimal_amount,
)

NAME = "sandbox"
PREFIX = "/sandbox/carrier"
MONTHLY_LIMIT = amounts.parse("1000", "CNY")
"""Of every line, in whole units of whatever currency it is charged in."""

_NO_LIMIT_LEFT = "0000"
_UNKNOWN = "0001"

_encoder = msgspec.json.Encoder(decimal_format="number")

Connection = AsyncConnection[TupleRow]


class _Refused(Exception):
    """The carrier says no."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.error = CarrierError(status, code, message)


class _Asked(msgspec.Struct, frozen=True):
    """A payment asked for, amounts as integers."""

    phone: str
    amount: int
    currency: str
    correlator: str
    reference_code: str


def carrier(pool: Pool, wall_ns: Callable[[], int]) -> Carrier:
    """A client of the sandbox that calls it in the same process, with HTTP's requests and answers but no socket."""
    app = FastAPI()
    app.include_router(router(pool, wall_ns))
    transport = httpx2.ASGITransport(app=app)
    return Carrier(
        NAME, httpx2.AsyncClient(transport=transport, base_url=f"http://sandbox{PREFIX}/", timeout=TIMEOUT_S)
    )


def router(pool: Pool, wall_ns: Callable[[], int]) -> APIRouter:
    """The carrier's two routes, in the shape of CAMARA Carrier Billing."""
    routes = APIRouter(prefix=PREFIX, include_in_schema=False)

    @routes.post("/payments")
    async def create_payment(request: Request) -> Response:
        try:
            asked = _asked(await request.body())
            async with pool.connection() as connection:
                payment = await _pay(connection, asked, wall_ns())
        except _Refused as refusal:
            return _answer(refusal.error, refusal.error.status)
        return _answer(payment, 201)

    @routes.get("/payments")
    async def list_payments(clientCorrelator: str) -> Response:  # noqa: N803 - the API's name
        async with pool.connection() as connection:
            found = await _find(connection, clientCorrelator)
        return _answer([found[1]] if found else [], 200)

    return routes


def _asked(body: bytes) -> _Asked:
    try:
        transaction = msgspec.json.decode(body, type=CreatePayment).amount_transaction
        information = transaction.payment_amount.charging_information
        amount = amounts.parse(f"{information.amount:f}", information.currency)
    except (msgspec.DecodeError, amounts.AmountFault) as fault:
        raise _Refused(400, "INVALID_ARGUMENT", f"The payment is not understood: {fault}.") from fault
    if amount == 0 or not transaction.client_correlator:
        raise _Refused(400, "INVALID_ARGUMENT", "A payment has an amount above zero and a clientCorrelator.")
    return _Asked(
        transaction.phone_number,
        amount,
        information.currency,
        transaction.client_correlator,
        transaction.reference_code,
    )


async def _pay(connection: Connection, asked: _Asked, now_ns: int) -> Payment:
    _check_line(asked.phone)
    await connection.execute(
        "INSERT INTO sandbox_line (phone, monthly_limit) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        (asked.phone, MONTHLY_LIMIT),
    )
    cursor = await connection.execute(
        "SELECT monthly_limit FROM sandbox_line WHERE phone = %s FOR UPDATE", (asked.phone,)
    )
    line = await cursor.fetchone()
    known = await _find(connection, asked.correlator)
    if known is not None:
        if known[0] != asked:
            raise _Refused(409, "CONFLICT", "This clientCorrelator was used for another payment.")
        return known[1]
    month = clock.iso(now_ns)[:7]
    if await _charged(connection, asked, month) + asked.amount > (int(line[0]) if line else 0):
        raise _limit_passed()
    return await _insert(connection, asked, month, now_ns)


def _check_line(phone: str) -> None:
    if phone.endswith(_UNKNOWN):
        raise _Refused(404, "IDENTIFIER_NOT_FOUND", "There is no line with this number.")
    if phone.endswith(_NO_LIMIT_LEFT):
        raise _limit_passed()


def _limit_passed() -> _Refused:
    return _Refused(
        422, "CARRIER_BILLING.USER_AMOUNT_THRESHOLD_OVERPASSED", "The line's limit for purchases this month is passed."
    )


async def _charged(connection: Connection, asked: _Asked, month: str) -> int:
    cursor = await connection.execute(
        "SELECT coalesce(sum(amount), 0) FROM sandbox_payment WHERE phone = %s AND month = %s AND currency = %s",
        (asked.phone, month, asked.currency),
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _insert(connection: Connection, asked: _Asked, month: str, now_ns: int) -> Payment:
    payment_id = ids.new("pay")
    await connection.execute(
        """INSERT INTO sandbox_payment (id, correlator, reference_code, phone, amount, currency, month, at_ns)
           VALUES (%s, %s, %s, %s, %s, %s, %s, %s)""",
        (payment_id, asked.correlator, asked.reference_code, asked.phone, asked.amount, asked.currency, month, now_ns),
    )
    return _payment(payment_id, asked, now_ns)


async def _find(connection: Connection, correlator: str) -> tuple[_Asked, Payment] | None:
    cursor = await connection.execute(
        """SELECT id, phone, amount, currency, correlator, reference_code, at_ns
           FROM sandbox_payment WHERE correlator = %s""",
        (correlator,),
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    asked = _Asked(row[1], int(row[2]), row[3], row[4], row[5])
    return asked, _payment(row[0], asked, row[6])


def _payment(payment_id: str, asked: _Asked, at_ns: int) -> Payment:
    amount: Decimal = decimal_amount(asked.amount, asked.currency)
    return Payment(
        payment_id=payment_id,
        amount_transaction=AmountTransaction(
            phone_number=asked.phone,
            payment_amount=PaymentAmount(ChargingInformation(amount, asked.currency)),
            reference_code=asked.reference_code,
            client_correlator=asked.correlator,
        ),
        payment_status="succeeded",
        payment_creation_date=clock.iso(at_ns),
    )


def _answer(content: Any, status: int) -> Response:
    return Response(_encoder.encode(content), status, media_type="application/json")
