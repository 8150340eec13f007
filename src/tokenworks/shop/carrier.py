"""Carrier billing: charging a price to a phone bill through the carrier's API.

The shape is CAMARA Carrier Billing, one-step payments: `POST /payments` with an `amountTransaction`, repeated safely
under the same `clientCorrelator`. One thing is beyond CAMARA and asked of every carrier: `GET /payments` filters by
`clientCorrelator`, because after a crash we must be able to ask what happened without charging. An answer that does
not say yes or no is `CarrierUnavailable`: the payment may or may not have been made.
"""

from decimal import Decimal
from typing import Annotated, TypeVar

import httpx2
import msgspec
from msgspec import Meta

from tokenworks.core import amounts

TIMEOUT_S = 10
_DESCRIPTION_LENGTH_MAX = 100
_OK, _CREATED = 200, 201
_DECLINING = frozenset({400, 403, 404, 422})

_Kind = TypeVar("_Kind")

_encoder = msgspec.json.Encoder(decimal_format="number")


class CarrierUnavailable(Exception):
    """The carrier did not say whether the payment was made."""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """What to put on which phone bill. The same correlator is charged once, however often it is sent."""

    correlator: str
    phone: str
    amount: int
    currency: str
    description: str


class Paid(msgspec.Struct, frozen=True):
    """The carrier owes us the amount; `reference` is its name for the payment."""

    reference: str


class Declined(msgspec.Struct, frozen=True):
    """The carrier said no and nothing was charged."""

    code: str
    message: str


class ChargingInformation(msgspec.Struct, frozen=True):
    """Amount in whole units of the currency, as an exact decimal number."""

    amount: Decimal
    currency: str
    description: Annotated[tuple[str, ...], Meta(max_length=10)] = ()


class PaymentAmount(msgspec.Struct, frozen=True, rename="camel"):
    """What is charged."""

    charging_information: ChargingInformation


class AmountTransaction(msgspec.Struct, frozen=True, rename="camel"):
    """A charge on a phone line."""

    phone_number: str
    payment_amount: PaymentAmount
    reference_code: str
    client_correlator: str = ""


class CreatePayment(msgspec.Struct, frozen=True, rename="camel"):
    """The body of `POST /payments`."""

    amount_transaction: AmountTransaction


class Payment(msgspec.Struct, frozen=True, rename="camel"):
    """A payment as the carrier shows it."""

    payment_id: str
    amount_transaction: AmountTransaction
    payment_status: str
    payment_creation_date: str


class CarrierError(msgspec.Struct, frozen=True):
    """The body of an answer that is not a payment."""

    status: int
    code: str
    message: str


class Carrier:
    """One carrier. `http` has its base address; `name` is how receivables name it: `receivable/carrier/{name}`."""

    def __init__(self, name: str, http: httpx2.AsyncClient) -> None:
        self.name = name
        self._http = http

    @property
    def payer(self) -> str:
        """Who owes us what this carrier has charged."""
        return f"carrier/{self.name}"

    async def charge(self, charge: Charge) -> Paid | Declined:
        """Charge once. Raises `CarrierUnavailable` if there is no clear answer."""
        body = _encoder.encode(CreatePayment(_transaction(charge)))
        answer = await self._send("POST", content=body, headers={"content-type": "application/json"})
        if answer.status_code in _DECLINING:
            error = _decode(answer, CarrierError)
            return Declined(_storable(error.code), _storable(error.message))
        if answer.status_code != _CREATED:
            raise CarrierUnavailable(f"the carrier answered {answer.status_code}")
        return _outcome(_decode(answer, Payment), charge)

    async def find(self, charge: Charge) -> Paid | Declined | None:
        """What became of this charge, or None if the carrier has never heard of it. Charges nothing."""
        answer = await self._send("GET", params={"clientCorrelator": charge.correlator})
        if answer.status_code != _OK:
            raise CarrierUnavailable(f"the carrier answered {answer.status_code}")
        payments = _decode(answer, list[Payment])
        return _outcome(payments[0], charge) if payments else None

    async def close(self) -> None:
        """Give the connections back."""
        await self._http.aclose()

    async def _send(
        self,
        method: str,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        params: dict[str, str] | None = None,
    ) -> httpx2.Response:
        try:
            return await self._http.request(method, "payments", content=content, headers=headers, params=params)
        except httpx2.HTTPError as fault:
            raise CarrierUnavailable(f"the carrier cannot be reached: {fault or type(fault).__name__}") from fault


def at_url(url: str) -> Carrier:
    """The carrier whose API is below this URL, named by its host."""
    http = httpx2.AsyncClient(base_url=f"{url.rstrip('/')}/", timeout=TIMEOUT_S)
    return Carrier(http.base_url.host, http)


def decimal_amount(amount: int, currency: str) -> Decimal:
    """An amount as the exact decimal number that carriers write."""
    return Decimal(amounts.exact(amount, currency))


def _transaction(charge: Charge) -> AmountTransaction:
    information = ChargingInformation(
        decimal_amount(charge.amount, charge.currency),
        charge.currency,
        (charge.description[:_DESCRIPTION_LENGTH_MAX],),
    )
    return AmountTransaction(
        phone_number=charge.phone,
        payment_amount=PaymentAmount(information),
        reference_code=charge.correlator,
        client_correlator=charge.correlator,
    )


def _outcome(payment: Payment, charge: Charge) -> Paid | Declined:
    transaction = payment.amount_transaction
    charged = transaction.payment_amount.charging_information
    if not charged.amount.is_finite() or not payment.payment_id or payment.payment_id != _storable(payment.payment_id):
        raise CarrierUnavailable("the carrier's payment has no amount or no name that can be kept")
    wanted = (charge.correlator, charge.phone, decimal_amount(charge.amount, charge.currency), charge.currency)
    if (transaction.client_correlator, transaction.phone_number, charged.amount, charged.currency) != wanted:
        raise CarrierUnavailable(f"the carrier's payment {payment.payment_id} is not the one asked for")
    if payment.payment_status == "succeeded":
        return Paid(payment.payment_id)
    if payment.payment_status in {"denied", "cancelled"}:
        return Declined("CARRIER_BILLING.PAYMENT_DENIED", f"The carrier has {payment.payment_status} the payment.")
    raise CarrierUnavailable(f"the carrier's payment {payment.payment_id} is {payment.payment_status}")


def _decode(answer: httpx2.Response, kind: type[_Kind]) -> _Kind:
    try:
        return msgspec.json.decode(answer.content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise CarrierUnavailable(f"the carrier's answer is not understood: {fault}") from fault


def _storable(text: str) -> str:
    """PostgreSQL keeps no NUL, and an order must not stay undecided because a carrier wrote one."""
    return text.replace("\0", "")
