"""Orders: from an offer to a paid bucket, once, whatever breaks in between.

The order is written down first, then the carrier is asked to charge under the order's id, then payment, bucket and
posting come into being in one transaction. Between the last two steps we may fail; the order then stays `accepted`
and `complete_paid` asks the carrier what happened. There is no stored state "paid": whoever has paid has the bucket. An
order of a credit offer asks nobody for money: it becomes a credit agreement in the transaction that writes it down.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tokenworks.base import clock, ids, log
from tokenworks.base.database import Pool
from tokenworks.core.commands import CommandCode, CommandRefused, conflict, invalid
from tokenworks.core.sales import net_of_tax
from tokenworks.ledger import buckets
from tokenworks.ledger.faults import OF_ONE
from tokenworks.shop import agreements, offers, order_rows, parties, sealed
from tokenworks.shop.carrier import Carrier, CarrierUnavailable, Charge, Declined, Paid
from tokenworks.shop.order_rows import Connection, Order, Payment

UNDECIDED_AT_ONCE = 500
NOT_CHARGED = "not_charged"
# A charge that the carrier has not heard of so long after it was last sent is not on its way; TIMEOUT_S is far below.
UNHEARD_OF_NS = 60 * clock.SECOND

_log = log.get(__name__)


@dataclass(frozen=True)
class OrderDesk:
    """Where orders are placed. `wall_ns` is the clock of `base.clock`."""

    pool: Pool
    carrier: Carrier
    wall_ns: Callable[[], int]

    async def place(self, customer_id: str, offer_id: str, order_id: str = "") -> Order:
        """Buy an offer on the phone bill, or on credit; gives the order completed or failed.

        Placing an order again under its id gives the same order, and goes on with it if it was left unfinished.
        """
        order = await self._accept(order_id or ids.new("ord"), customer_id, offer_id)
        if order.state != "accepted":
            return order
        try:
            outcome = await self.carrier.charge(await self._charge(order))
        except CarrierUnavailable as fault:
            _log.warning("an order waits for the carrier", extra={"order": order.id, "reason": str(fault)})
            raise CommandRefused(
                CommandCode.CARRIER_UNAVAILABLE,
                f"The carrier gave no clear answer. The order {order.id!r} is kept and completed if it was paid.",
            ) from fault
        return await self._close(order, outcome)

    async def complete_paid(self) -> int:
        """Finish what a crash or a silent carrier left undecided; gives how many orders were closed.

        To be called when the office starts and now and then; an order the carrier has not heard of is given a while.
        """
        async with self.pool.connection() as connection:
            waiting = await order_rows.undecided(connection, UNDECIDED_AT_ONCE)
        closed = 0
        for order in waiting:
            outcome = await self._asked(order)
            if outcome is not None and await self._is_closed(order, outcome):
                closed += 1
        return closed

    async def _is_closed(self, order: Order, outcome: Paid | Declined) -> bool:
        """Close it, if that can be done: one order that the books do not take must not keep the others waiting."""
        try:
            return (await self._close(order, outcome)).state != "accepted"
        except OF_ONE as fault:
            reason = str(fault).partition("\n")[0]
            _log.error("an order cannot be closed", extra={"order": order.id, "reason": reason})
            return False

    async def _accept(self, order_id: str, customer_id: str, offer_id: str) -> Order:
        """The order, written down, and if it is to be charged, when: nobody may give it up while that is new."""
        now_ns = self.wall_ns()
        async with sealed.transaction(self.pool, now_ns) as connection:
            order = await order_rows.find(connection, order_id)
            if order is None:
                fresh = await self._fresh(connection, order_id, customer_id, offer_id, now_ns)
                order = await order_rows.insert(connection, fresh)
                return await agreements.begun(connection, order, now_ns)
            order_rows.check_same(order, customer_id, offer_id)
            await order_rows.charge_again(connection, order_id, now_ns)
            return await order_rows.get(connection, order_id)

    async def _fresh(
        self, connection: Connection, order_id: str, customer_id: str, offer_id: str, now_ns: int
    ) -> Order:
        customer = await parties.customer(connection, customer_id, "customer")
        offer = await offers.get(connection, offer_id, "offer")
        if customer.state != "active":
            raise conflict(f"The customer {customer_id!r} is suspended and cannot buy.", "customer")
        if offer.legal_entity_id != customer.legal_entity_id:
            raise invalid(f"The offer {offer_id!r} is not sold to customers of {customer.legal_entity_id!r}.", "offer")
        entity = await parties.legal_entity(connection, offer.legal_entity_id)
        net, tax = net_of_tax(offer.price, entity.tax_basis_points)
        return Order(
            id=order_id,
            customer_id=customer.id,
            billing_account_id=customer.billing_account_id,
            legal_entity_id=entity.id,
            offer_id=offer.id,
            phone=customer.phone,
            price=offer.price,
            net=net,
            tax=tax,
            tax_basis_points=entity.tax_basis_points,
            currency=offer.currency,
            state="accepted",
            bucket_id=None,
            failure_code="",
            failure="",
            placed_at_ns=now_ns,
            charged_since_ns=now_ns,
            closed_at_ns=None,
            payment=None,
        )

    async def _charge(self, order: Order) -> Charge:
        async with self.pool.connection() as connection:
            offer = await offers.get(connection, order.offer_id)
        return Charge(
            # A ledger that was restored may have forgotten the order; repeated, it must not be charged again.
            correlator=ids.timeless(order.id),
            phone=order.phone,
            amount=order.price,
            currency=order.currency,
            description=offer.name,
        )

    async def _asked(self, order: Order) -> Paid | Declined | None:
        """What became of the payment; None to ask again later."""
        try:
            outcome = await self.carrier.find(await self._charge(order))
        except CarrierUnavailable as fault:
            _log.warning("an order still waits", extra={"order": order.id, "reason": str(fault)})
            return None
        if outcome is None and self.wall_ns() - order.charged_since_ns > UNHEARD_OF_NS:
            return Declined(NOT_CHARGED, "The payment never reached the carrier; nothing was charged.")
        return outcome

    async def _close(self, asked: Order, outcome: Paid | Declined) -> Order:
        """Close an order with what the carrier said of it. `asked` is the order as it was before the carrier was asked.

        Who has paid has the bucket, even if the order was given up meanwhile. An order that is being charged again is
        not given up.
        """
        now_ns = self.wall_ns()
        async with sealed.transaction(self.pool, now_ns) as connection:
            order = await order_rows.lock(connection, asked.id)
            if isinstance(outcome, Paid) and order.state != "completed":
                await self._complete(connection, order, outcome, now_ns)
            elif isinstance(outcome, Declined) and order.state == "accepted" and not _overtaken(asked, order, outcome):
                await order_rows.fail(connection, order.id, outcome.code, outcome.message, now_ns)
            return await order_rows.get(connection, asked.id)

    async def _complete(self, connection: Connection, order: Order, paid: Paid, now_ns: int) -> None:
        offer = await offers.get(connection, order.offer_id)
        entity = await parties.legal_entity(connection, order.legal_entity_id)
        bucket = offers.bucket(offer, entity, order.billing_account_id, now_ns)
        await buckets.sell(
            connection,
            order_id=order.id,
            bucket=bucket,
            granted=offer.granted,
            payer=self.carrier.payer,
            currency=order.currency,
            net=order.net,
            tax=order.tax,
            offer_id=offer.id,
            at_ns=now_ns,
        )
        payment = Payment(
            method="carrier",
            payer=self.carrier.payer,
            reference=paid.reference,
            amount=order.price,
            currency=order.currency,
            paid_at_ns=now_ns,
        )
        await order_rows.complete(connection, order.id, payment, bucket.id)


def _overtaken(asked: Order, order: Order, outcome: Declined) -> bool:
    """Whether "never heard of it" was said before the charge that is now on its way."""
    return outcome.code == NOT_CHARGED and order.charged_since_ns != asked.charged_since_ns
