"""A small shop for tests: one seller, tariffs, offers, a customer, a carrier, and use of what was bought."""

import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import httpx2
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from ledger.books import Journal
from tokenworks.access import keys
from tokenworks.access.keys import Holder, KeyRecord
from tokenworks.access.sealed import SEALED as ACCESS_SEALED
from tokenworks.api import sandbox_carrier
from tokenworks.base import ids
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.core.amounts import MILLION, parse
from tokenworks.core.bounds import Need
from tokenworks.core.journal import LeaseClose
from tokenworks.core.leasing import Lease, LeaseRequest
from tokenworks.core.purse import Charge
from tokenworks.core.tariff import cost, flat
from tokenworks.core.usage import Tokens
from tokenworks.ledger import seal_check, verify, verify_corrections
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.tables import CORRECTIONS
from tokenworks.ledger.tables import SEALED as LEDGER_SEALED
from tokenworks.ledger.verify import Check
from tokenworks.meter import verify as meter_verify
from tokenworks.meter.tables import SEALED as METER_SEALED
from tokenworks.shop import agreements, bills, offers, parties, payments, sealed, tariffs
from tokenworks.shop import verify as shop_verify
from tokenworks.shop.carrier import Carrier
from tokenworks.shop.collections import CollectionDesk
from tokenworks.shop.corrections import Ground
from tokenworks.shop.offers import Offer
from tokenworks.shop.orders import OrderDesk
from tokenworks.shop.parties import Customer, LegalEntity
from tokenworks.shop.payments import PaymentReceived
from tokenworks.supply.sealed import SEALED as SUPPLY_SEALED

SECOND = 1_000_000_000
NOON = 1_769_832_000 * SECOND  # 31 January 2026, 12:00 in Shanghai
SETTINGS = Settings(lease_use_ms=1_000, request_longest_ms=1_000, lease_grace_ms=1_000, lease_share_percent=100)
LE = LegalEntity(
    id="le",
    name="Seller",
    country="CN",
    currency="CNY",
    tax_basis_points=600,
    timezone="Asia/Shanghai",
    created_at_ns=NOON,
)


def offer(name: str = "p10", /, **changes: object) -> Offer:
    terms: dict[str, object] = {
        "id": name,
        "legal_entity_id": LE.id,
        "name": f"Package {name}",
        "seller": LE.name,
        "source": "",
        "price": parse("9.9", "CNY"),
        "currency": "CNY",
        "granted": 10 * MILLION,
        "unit": "token",
        "validity": "P1M",
        "tariff_id": "plain",
        "tier": "medium",
        "models": (),
        "priority": 100,
        "created_at_ns": NOON,
    }
    return Offer(**(terms | changes))  # type: ignore[arg-type]


def credit(name: str = "credit", /, **changes: object) -> Offer:
    """Up to RMB 100 a month on the phone bill, at RMB 2 for a million tokens, tax included."""
    limit = parse("100", "CNY")
    terms: dict[str, object] = {
        "kind": "credit",
        "price": limit,
        "granted": limit,
        "unit": "CNY",
        "tariff_id": "metered",
        "priority": offers.CREDIT_PRIORITY,
    }
    return offer(name, **(terms | changes))


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now_ns: int = NOON

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class Shop:
    """The shop of a test, with how often its customers have used something."""

    pool: Pool
    clock: Clock
    desk: OrderDesk
    customer: Customer
    uses: int = field(default=0)

    async def use(self, tokens: Tokens, model: str = "m", *, lease: int = 0) -> None:
        """One request that is leased, charged at its bucket's tariff, closed and posted."""
        held = await self.lease(lease or tokens.total, model)
        book = await self.journal()
        async with self.pool.connection() as connection:
            tariff = (await tariffs.currents(connection))[held.bucket.tariff_id]
        rate = tariff.rate(model, held.bucket.tier)
        assert rate is not None
        amount = cost(tokens, rate, tariff.rounding)
        opening = book.open(held, account=self.customer.billing_account_id, amount=held.amount)
        book.close(opening, Charge(held.lease_id, held.bucket.id, tariff.name, tariff.unit, tokens, amount))
        book.add(LeaseClose(held.lease_id, held.amount - amount))
        reply = await book.ship(self.pool, self.clock.now_ns, final=True)
        assert reply.fault == ""

    async def lease(self, tokens: int, model: str = "m") -> Lease:
        """A slice of the customer's wallet for one more use."""
        [held] = await self.leases(tokens, model)
        return held

    async def leases(self, tokens: int, model: str = "m") -> tuple[Lease, ...]:
        """Slices for one more use, of as many buckets as it needs."""
        self.uses += 1
        need = Need(tokens, 0)
        owner = self.customer.billing_account_id
        asked = LeaseRequest("gw-0", "e", self.uses, owner, model, need, need, Need(0, 0), need)
        async with self.pool.connection() as connection:
            prices = await tariffs.currents(connection)
        [reply] = await LeaseDesk(self.pool, SETTINGS).grant([asked], prices, self.clock.now_ns)
        assert reply.refusal is None
        return reply.leases

    async def spend(self, held: Sequence[Lease], *lines: tuple[int, int]) -> None:
        """One request over these leases: (tokens, amount) of each; then they are given back."""
        book = await self.journal()
        opening = book.open(*held, account=self.customer.billing_account_id)
        charges = [
            Charge(one.lease_id, one.bucket.id, f"{one.bucket.tariff_id}@1", one.bucket.unit, Tokens(tokens), amount)
            for one, (tokens, amount) in zip(held, lines, strict=True)
        ]
        book.close(opening, *charges)
        for one, (_, amount) in zip(held, lines, strict=True):
            book.add(LeaseClose(one.lease_id, one.amount - amount))
        assert (await book.ship(self.pool, self.clock.now_ns, final=True)).fault == ""

    async def journal(self) -> Journal:
        """A journal for the newest use, by a key of the customer."""
        async with self.pool.connection() as connection:
            known = await keys.listed(connection, self.customer.id, 1, "")
        key = known[0] if known else await self.key()
        return Journal(f"j{self.uses}", entity=LE.id, key=key.id)

    async def key(self, customer: Customer | None = None) -> KeyRecord:
        """A new key of the customer, or of another one."""
        async with sealed.transaction(self.pool, NOON) as connection:
            record, _ = await keys.issue(connection, holder(customer or self.customer), "laptop", NOON)
        return record


def holder(customer: Customer) -> Holder:
    return Holder(
        legal_entity_id=customer.legal_entity_id,
        customer_id=customer.id,
        billing_account_id=customer.billing_account_id,
    )


def ground(name: str, at_ns: int = NOON) -> Ground:
    """Why something is put right, and when."""
    return Ground(name, "asked for by the customer", "", at_ns)


async def opened(pool: Pool, carrier: Carrier | None = None) -> Shop:
    """A shop with the tariff `plain`, the offer `p10` and one customer."""
    clock = Clock()
    async with sealed.transaction(pool, NOON) as connection:
        await parties.add_legal_entity(connection, LE)
        await tariffs.publish(connection, "plain", "token", {"*/*": flat(MILLION)}, NOON)
        await offers.add(connection, offer())
        customer = await parties.add_customer(
            connection, LE, name="Li Na", phone="+86 138 0000 0123", kind="individual", at_ns=NOON
        )
    return Shop(pool, clock, OrderDesk(pool, carrier or sandbox_carrier.carrier(pool, clock), clock), customer)


async def with_credit(shop: Shop, offered: Offer | None = None) -> Offer:
    """Put a credit offer into the shop, with the tariff that its limit is spent by."""
    offered = offered or credit()
    async with sealed.transaction(shop.pool, NOON) as connection:
        if offered.tariff_id == "metered":
            await tariffs.publish(connection, "metered", "CNY", {"*/*": flat(parse("2", "CNY"))}, NOON)
        return await offers.add(connection, offered)


async def used_collected_and_paid(shop: Shop) -> None:
    """A past that leaves rows in every table of credit: a month on the phone bill, and an invoice paid in part."""
    await with_credit(shop, credit("wired", payer="customer"))
    await with_credit(shop)
    shop.clock.now_ns += 40 * 86_400 * SECOND  # what was paid for before would be drawn first
    agreement = await shop.desk.place(shop.customer.id, "credit", "ord_credit")
    await shop.use(Tokens(5_000_123))
    await bills.close(shop.pool, shop.customer.id, shop.clock.now_ns)
    shop.clock.now_ns += 40 * 86_400 * SECOND
    await agreements.open_due(shop.pool, shop.clock.now_ns)
    desk = CollectionDesk(shop.pool, shop.desk.carrier, shop.clock)
    assert await desk.collect_due() == 1
    async with sealed.transaction(shop.pool, shop.clock.now_ns) as connection:
        await agreements.end(connection, agreement.id, shop.clock.now_ns)
    invoiced = await shop.desk.place(shop.customer.id, "wired", "ord_wired")
    shop.clock.now_ns += 40 * 86_400 * SECOND
    await agreements.open_due(shop.pool, shop.clock.now_ns)
    await shop.use(Tokens(1_000_000))
    async with sealed.transaction(shop.pool, shop.clock.now_ns) as connection:
        await payments.receive(connection, LE, paid(invoiced.id, "1.5", shop.clock.now_ns))
    await bills.close(shop.pool, shop.customer.id, shop.clock.now_ns)


def paid(agreement_id: str, amount: str, at_ns: int = NOON, reference: str = "wire-1") -> PaymentReceived:
    return PaymentReceived(
        id=ids.new("pmt"),
        legal_entity_id=LE.id,
        payer=f"credit/{agreement_id}",
        amount=parse(amount, "CNY"),
        currency="CNY",
        reference=reference,
        received_at_ns=at_ns,
    )


async def another(shop: Shop, phone: str) -> Customer:
    """A further customer, on another phone bill."""
    async with sealed.transaction(shop.pool, NOON) as connection:
        return await parties.add_customer(connection, LE, name="B", phone=phone, kind="enterprise", at_ns=NOON)


async def balances(pool: Pool) -> dict[str, int]:
    """Every account of the ledger that is not at zero."""
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT code, balance FROM account WHERE balance <> 0")).fetchall()
        return {str(code): int(balance) for code, balance in rows}


async def all_checks(connection: AsyncConnection[TupleRow]) -> list[Check]:
    tables = LEDGER_SEALED + CORRECTIONS + METER_SEALED + ACCESS_SEALED + sealed.SEALED + SUPPLY_SEALED
    return [
        *await verify.checks(connection),
        *await verify_corrections.checks(connection),
        *await meter_verify.checks(connection),
        *await shop_verify.checks(connection),
        *await seal_check.seal_checks(connection, tables),
    ]


async def faults(pool: Pool) -> list[Check]:
    """The checks that are not fine."""
    async with pool.connection() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return [check for check in await all_checks(connection) if not check.ok]


Answered = Coroutine[None, None, httpx2.Response]
Answering = Callable[[httpx2.Request], httpx2.Response] | Callable[[httpx2.Request], Answered]


def scripted(answer: Answering) -> Carrier:
    """A carrier that answers as the test says."""
    http = httpx2.AsyncClient(transport=httpx2.MockTransport(answer), base_url="http://carrier.example/billing/")
    return Carrier("scripted", http)


def losing_the_first(asked: list[bytes]) -> Carrier:
    """A carrier that pays, and whose first answer does not arrive; `asked` collects what it was asked."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.content)
        if len(asked) == 1:
            raise httpx2.ReadError("lost", request=request)
        return payment_for(request)

    return scripted(answer)


def payment_for(request: httpx2.Request, status: str = "succeeded", **changes: object) -> httpx2.Response:
    """The payment that a carrier makes of a request, with changes to the payment's top level."""
    asked = json.loads(request.content)["amountTransaction"]
    payment = {
        "paymentId": "pay-1",
        "amountTransaction": asked,
        "paymentStatus": status,
        "paymentCreationDate": "2026-01-31T04:00:00Z",
    }
    return httpx2.Response(201, json=payment | changes)
