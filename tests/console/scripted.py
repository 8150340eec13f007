"""Real books behind the page: a gateway that leases, opens, closes and ships as a worker does, without a model."""

import asyncio
import json
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from console.canned import KEY, MODEL, TOKEN
from ledger.books import SEALED, Journal
from tokenworks.access.sealed import SEALED as ACCESS_SEALED
from tokenworks.base import clock
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.console import ConsoleContext, books, create
from tokenworks.core.amounts import MILLION
from tokenworks.core.bounds import Need
from tokenworks.core.journal import Attempt, Closing, Opening, Reserved
from tokenworks.core.leasing import LeaseRequest
from tokenworks.core.purse import Charge
from tokenworks.core.tariff import Rate, flat
from tokenworks.core.usage import Tokens
from tokenworks.ledger import seal_check, verify
from tokenworks.ledger.leases import LeaseDesk
from tokenworks.ledger.seal import Connection
from tokenworks.meter import verify as meter_verify
from tokenworks.meter.desk import Desk
from tokenworks.meter.feed import Feed
from tokenworks.shop import offers, parties, sealed, tariffs
from tokenworks.shop.carrier import Carrier, Paid
from tokenworks.shop.carrier import Charge as PhoneCharge
from tokenworks.shop.offers import Offer
from tokenworks.shop.orders import OrderDesk
from tokenworks.shop.parties import Customer, LegalEntity
from tokenworks.supply import suppliers
from tokenworks.supply.suppliers import Supplier

PRICE = 9_900_000_000
GRANTED = 10_000_000
BOUND = 300
USED = Tokens(34, 0, 0, 27, 0)
COST = 26_400


class PayingCarrier(Carrier):
    """Takes every charge onto the phone bill."""

    def __init__(self) -> None:
        self.name = "sandbox"

    @property
    def payer(self) -> str:
        return "carrier/sandbox"

    async def charge(self, charge: PhoneCharge) -> Paid:
        return Paid(f"ref-{charge.correlator}")


class ScriptedOffice:
    """One customer with one package, and a gateway beside it. The answer waits at `gate` after its first word."""

    def __init__(self, pool: Pool, customer: Customer) -> None:
        self.pool, self.customer = pool, customer
        self.feed = Feed()
        self.journal = Journal(entity=customer.legal_entity_id)
        self.desk = LeaseDesk(pool, Settings())
        self.gate = asyncio.Event()
        self.calls = 0

    def app(self, url: str) -> FastAPI:
        app = FastAPI()
        app.add_api_route("/v1/chat/completions", self.complete, methods=["POST"])
        context = ConsoleContext(
            settings=Settings(live_read_pause_ms=10, live_verify_pause_ms=10),
            admin_token=TOKEN,
            gateway_url=url,
            live_key=KEY,
            model=MODEL,
            read=books.reader(self.pool, self.customer.id, clock.wall_ns),
            verify=books.verifier(self.pool, CHECKS, clock.wall_ns, clock.boot_ns),
            happenings=books.happenings(self.feed, self.customer.billing_account_id),
            wall_ns=clock.wall_ns,
        )
        self.board = create(app, context)
        return app

    async def complete(self) -> StreamingResponse:
        self.calls += 1
        headers = {"x-request-id": f"req-{self.calls}"}
        return StreamingResponse(self._answer(self.calls), media_type="text/event-stream", headers=headers)

    async def _answer(self, number: int) -> AsyncIterator[bytes]:
        need = Need(BOUND, 0)
        owner = self.customer.billing_account_id
        ask = LeaseRequest("gw-0", "e", number, owner, MODEL, need, need, Need(0, 0), need)
        async with self.pool.connection() as connection:
            known = await tariffs.currents(connection)
        lease = (await self.desk.grant([ask], known, clock.wall_ns()))[0].leases[0]
        opened_ns = clock.wall_ns()
        reserved = (Reserved(lease.lease_id, lease.bucket.id, "token", BOUND),)
        account, entity = self.customer.billing_account_id, self.customer.legal_entity_id
        position = self.journal.add(
            Opening(f"req-{number}", opened_ns, entity, account, "key", MODEL, True, BOUND, BOUND, reserved)
        )
        await self._ship()
        yield _piece("Rivers")
        await self.gate.wait()
        yield _piece(" run.")
        charge = Charge(lease.lease_id, lease.bucket.id, "personal@1", "token", USED, USED.total)
        attempt = Attempt("ep", "works", "buy@1", "CNY", USED, COST, "finished", 1, 2, 3)
        now_ns, first_ns = clock.wall_ns(), 40 * clock.MS
        self.journal.add(
            Closing(position, now_ns, "finished", "reported", USED, USED, USED, (), (charge,), (attempt,), first_ns)
        )
        await self._ship()
        yield b"data: [DONE]\n\n"

    async def _ship(self) -> None:
        answer = await Desk(self.pool).post(self.journal.rest(), is_watched=self.feed.watched)
        assert answer.reply.fault == ""
        for event in answer.events:
            self.feed.publish(event)
        self.journal.shipped = answer.reply.posted_through


async def found(pool: Pool) -> ScriptedOffice:
    """A legal entity, a customer who has bought a package, and a supplier."""
    now_ns = clock.wall_ns()
    entity = LegalEntity(
        id="le", name="Demo Telecom", country="CN", currency="CNY", tax_basis_points=600, timezone="Asia/Shanghai",
        created_at_ns=now_ns,
    )  # fmt: skip
    offer = Offer(
        id="personal-10m", legal_entity_id="le", name="Personal 10M", seller="", source="", price=PRICE, currency="CNY",
        granted=GRANTED, unit="token", validity="P1M", tariff_id="personal", tier="medium", models=(), priority=100,
        created_at_ns=now_ns,
    )  # fmt: skip
    async with sealed.transaction(pool, now_ns) as connection:
        await parties.add_legal_entity(connection, entity)
        await tariffs.publish(connection, "personal", "token", _rates(), now_ns)
        await offers.add(connection, offer)
        works = Supplier(id="works", name="Engine Works", currency="CNY", created_at_ns=now_ns)
        await suppliers.add(connection, works)
        customer = await parties.add_customer(
            connection, entity, name="Li Na", phone="+8613800000001", kind="individual", at_ns=now_ns
        )
    await OrderDesk(pool, PayingCarrier(), clock.wall_ns).place(customer.id, offer.id)
    return ScriptedOffice(pool, customer)


async def _seal_checks(connection: Connection) -> list[verify.Check]:
    return await seal_check.seal_checks(connection, SEALED + ACCESS_SEALED + sealed.SEALED)


def _rates() -> dict[str, Rate]:
    return {"*/*": flat(MILLION)}


def _piece(text: str) -> bytes:
    return f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': text}}]})}\n\n".encode()


CHECKS = (verify.checks, meter_verify.checks, _seal_checks)
