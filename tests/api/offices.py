"""An office for tests of the API: a real database, a clock that stands, and notes of what it told the gateways."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory

import httpx2
from prometheus_client import CollectorRegistry

from shop.shopfront import Clock, all_checks
from tokenworks import api
from tokenworks.api import OfficeContext, sandbox_carrier
from tokenworks.base.config import Settings
from tokenworks.base.database import Pool
from tokenworks.base.vault import Vault
from tokenworks.core.wire import KeyChanged, WorkerState
from tokenworks.shop.orders import OrderDesk

TOKEN = "tw-admin"
LEGAL_ENTITY = {
    "id": "le",
    "name": "Seller",
    "country": "CN",
    "currency": "CNY",
    "tax_basis_points": 600,
    "timezone": "Asia/Shanghai",
}
TARIFF = {"id": "plain", "unit": "token", "rates": {"*/*": {"input": 1_000_000, "output": 1_000_000}}}
OFFER = {
    "id": "p10",
    "name": "Package p10",
    "price": {"amount": "9.9", "unit": "CNY"},
    "grant": {"amount": 10_000_000, "unit": "token"},
    "tariff": "plain",
}


@dataclass
class Told:
    """What the office has told others."""

    catalogs: int = 0
    keys: list[KeyChanged] = field(default_factory=list)
    bus: str = "ok"

    async def catalog(self) -> None:
        self.catalogs += 1

    async def key(self, changed: KeyChanged) -> None:
        self.keys.append(changed)

    async def bus_state(self) -> str:
        return self.bus


@dataclass
class Office:
    http: httpx2.AsyncClient
    told: Told
    clock: Clock
    context: OfficeContext

    async def get(self, path: str, status: int = 200, **query: str | int) -> dict[str, object]:
        answer = await self.http.get(f"/api/v1{path}", params=query)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def post(self, path: str, body: object, status: int = 201, key: str = "") -> dict[str, object]:
        headers = {"idempotency-key": key} if key else {}
        answer = await self.http.post(f"/api/v1{path}", json=body, headers=headers)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def furnished(self, phone: str = "+8613800000123") -> str:
        """A seller with one offer and one customer; gives the customer's id."""
        for path, body in (("/legal-entities", LEGAL_ENTITY), ("/tariffs", TARIFF), ("/offers", OFFER)):
            await self.post(path, body)
        return await self.customer(phone)

    async def customer(self, phone: str) -> str:
        return str((await self.post("/customers", {"name": "Li Na", "phone": phone}))["id"])


@asynccontextmanager
async def running(pool: Pool, **given: str) -> AsyncGenerator[Office]:
    """An office with settings of its own where they are `given`, and master keys in a folder that is thrown away."""
    clock, told = Clock(), Told()
    stack = AsyncExitStack()
    folder = stack.enter_context(TemporaryDirectory(prefix="tokenworks-secrets-"))
    settings = Settings(**({"master_key_file": f"{folder}/master-keys"} | given))
    vault = Vault(settings.master_keys)
    vault.ready()
    context = OfficeContext(
        settings=settings,
        admin_token=TOKEN,
        version="test",
        pool=pool,
        orders=OrderDesk(pool, sandbox_carrier.carrier(pool, clock), clock),
        wall_ns=clock,
        catalog_changed=told.catalog,
        key_changed=told.key,
        checks=(all_checks,),
        health={"bus": told.bus_state},
        metrics=CollectorRegistry(),
        vault=vault,
        workers=lambda: [WorkerState("gw-0", {"m": (0, 2, 0, 0, 0)}, {"end": 3}, ("end",))],
        limit_use=lambda limits: {limit.id: 7 for limit in limits},
    )
    transport = httpx2.ASGITransport(app=api.create(context))
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with stack, httpx2.AsyncClient(transport=transport, base_url="http://office", headers=headers) as http:
        yield Office(http, told, clock, context)
