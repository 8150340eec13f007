"""Routes of suppliers and endpoints. An endpoint added here is in the gateways' catalog when the answer arrives."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from tokenworks.api.catalog import ModelBody, RatesShown, new_model, rate, rates_shown
from tokenworks.api.commands import Command, once
from tokenworks.api.office import Connection, Office
from tokenworks.api.shapes import Amount, Body, Cursor, Limit, Page, Rates, at, money, page
from tokenworks.base import ids
from tokenworks.core.commands import CommandCode, CommandRefused, conflict, invalid
from tokenworks.core.networks import parse_networks
from tokenworks.core.snapshot import Spoken
from tokenworks.plant import models, reach, registry
from tokenworks.plant.addresses import base_url
from tokenworks.plant.registry import EndpointRecord
from tokenworks.supply import books, prices, suppliers
from tokenworks.supply.prices import PurchaseTariff
from tokenworks.supply.suppliers import Supplier

router = APIRouter(tags=["purchasing"])

State = Literal["in_service", "out_of_service"]
Disconnect = Literal["stop", "drain"]


class SupplierBody(Body):
    """A new supplier, paid in one currency."""

    name: str
    currency: str
    id: str = ""


class SupplierShown(BaseModel):
    """A supplier, what it is owed now, and what its attempts have cost so far."""

    id: str
    name: str
    currency: str
    payable: Amount
    cost_to_date: Amount
    created_at: str


class PurchaseBody(Rates):
    """Purchase prices of one million tokens, in the supplier's currency."""

    currency: str = ""
    rounding: Literal["up", "half_up"] = "half_up"


class EndpointBody(Body):
    """A server that speaks OpenAI's API, or another `dialect`. `model` is a registered one's id, or a description.

    `concurrency_max`: requests that may run there at once; 0 sets no limit.
    """

    supplier: str
    model: str | ModelBody
    base_url: str
    purchase: PurchaseBody
    upstream_model: str = ""
    api_key: str = ""
    disconnect: Disconnect = "stop"
    concurrency_max: int = 0
    dialect: Spoken = "openai"
    site: str = "main"
    id: str = ""


class EndpointChange(Body):
    """Take an endpoint out of service or back, or give it a new key, purchase price or `concurrency_max`."""

    state: State | None = None
    api_key: str | None = None
    concurrency_max: int | None = None
    purchase: PurchaseBody | None = None


class PurchaseShown(RatesShown):
    """The current purchase price; `tariff` is the name that attempts keep."""

    tariff: str
    currency: str


class EndpointShown(BaseModel):
    """An endpoint. Its key is never shown, only whether there is one."""

    id: str
    site: str
    supplier_id: str
    model: str
    base_url: str
    upstream_model: str
    api_key_set: bool
    disconnect: Disconnect
    concurrency_max: int
    dialect: Spoken
    state: State
    purchase: PurchaseShown
    created_at: str


@router.get("/suppliers")
async def list_suppliers(office: Office, limit: Limit = 50, cursor: Cursor = "") -> Page[SupplierShown]:
    """Suppliers and what they are owed."""
    async with office.pool.connection() as connection:
        found = await suppliers.listed(connection, limit, cursor)
        shown = [await _supplier(connection, supplier) for supplier in found]
    return Page(items=shown, next=found[-1].id if len(found) == limit else None)


@router.post("/suppliers", status_code=201)
async def add_supplier(office: Office, command: Command, body: SupplierBody) -> SupplierShown:
    """Register a supplier."""

    async def work(connection: Connection) -> SupplierShown:
        supplier = Supplier(
            id=body.id or ids.new("sup"), name=body.name, currency=body.currency, created_at_ns=office.wall_ns()
        )
        return await _supplier(connection, await suppliers.add(connection, supplier))

    return await once(office, command, SupplierShown, work)


@router.get("/suppliers/{supplier_id}")
async def show_supplier(office: Office, supplier_id: str) -> SupplierShown:
    """One supplier."""
    async with office.pool.connection() as connection:
        return await _supplier(connection, await suppliers.get(connection, supplier_id))


@router.get("/endpoints")
async def list_endpoints(office: Office, limit: Limit = 50, cursor: Cursor = "") -> Page[EndpointShown]:
    """Endpoints, in service or not."""
    async with office.pool.connection() as connection:
        found = await registry.listed(connection, limit, cursor)
        current = await prices.currents(connection)
    return page(found, limit, lambda endpoint: _endpoint(endpoint, current[endpoint.purchase_tariff_id]))


@router.post("/endpoints", status_code=201)
async def add_endpoint(office: Office, command: Command, body: EndpointBody) -> EndpointShown:
    """Add an endpoint and put it into service."""

    async def work(connection: Connection) -> EndpointShown:
        now_ns = office.wall_ns()
        supplier = await suppliers.get(connection, body.supplier, "supplier")
        model = await _model(connection, body.model, now_ns)
        endpoint_id = body.id or ids.new("end")
        tariff = await _publish(connection, endpoint_id, supplier, body.purchase, now_ns)
        endpoint = EndpointRecord(
            id=endpoint_id,
            site=body.site,
            supplier_id=supplier.id,
            model_id=model,
            base_url=body.base_url,
            upstream_model=body.upstream_model or model,
            sealed_key="",
            purchase_tariff_id=tariff.id,
            disconnect=body.disconnect,
            concurrency_max=body.concurrency_max,
            dialect=body.dialect,
            state="in_service",
            created_at_ns=now_ns,
        )
        return _endpoint(await registry.add(connection, office.vault, endpoint, body.api_key), tariff)

    await reach.check(base_url(body.base_url), parse_networks(office.settings.endpoint_networks))
    added = await once(office, command, EndpointShown, work)
    await office.catalog_changed()
    return added


@router.get("/endpoints/{endpoint_id}")
async def show_endpoint(office: Office, endpoint_id: str) -> EndpointShown:
    """One endpoint."""
    async with office.pool.connection() as connection:
        return await _current(connection, await registry.get(connection, endpoint_id))


@router.patch("/endpoints/{endpoint_id}")
async def change_endpoint(office: Office, command: Command, endpoint_id: str, body: EndpointChange) -> EndpointShown:
    """Change an endpoint's state, key, purchase price or limit of requests at once."""

    async def work(connection: Connection) -> EndpointShown:
        endpoint = await registry.get(connection, endpoint_id)
        if body.purchase is not None:
            supplier = await suppliers.get(connection, endpoint.supplier_id)
            await _publish(connection, endpoint.purchase_tariff_id, supplier, body.purchase, office.wall_ns())
        if body.api_key is not None:
            endpoint = await registry.set_key(connection, office.vault, endpoint_id, body.api_key)
        if body.concurrency_max is not None:
            endpoint = await registry.set_concurrency(connection, endpoint_id, body.concurrency_max)
        if body.state is not None:
            endpoint = await registry.set_state(connection, endpoint_id, body.state)
        return await _current(connection, endpoint)

    changed = await once(office, command, EndpointShown, work)
    await office.catalog_changed()
    return changed


async def _model(connection: Connection, wanted: str | ModelBody, now_ns: int) -> str:
    """The model's id. A description of a model that is registered already must not contradict it."""
    if isinstance(wanted, str):
        return (await models.get(connection, wanted)).id
    described = new_model(wanted, now_ns)
    try:
        known = await models.get(connection, wanted.id)
    except CommandRefused as refusal:
        if refusal.code is not CommandCode.NOT_FOUND:
            raise
        return (await models.add(connection, described)).id
    if (known.context_window, known.output_max) != (described.context_window, described.output_max):
        raise conflict(f"The model {known.id!r} is registered with other limits; name it by its id.", "model")
    return known.id


async def _publish(
    connection: Connection, tariff_id: str, supplier: Supplier, purchase: PurchaseBody, now_ns: int
) -> PurchaseTariff:
    if purchase.currency not in ("", supplier.currency):
        raise invalid(f"The supplier {supplier.id!r} is paid in {supplier.currency}.", "purchase.currency")
    price = rate(purchase, supplier.currency, "purchase")
    return await prices.publish(connection, tariff_id, supplier, price, now_ns, purchase.rounding)


async def _supplier(connection: Connection, supplier: Supplier) -> SupplierShown:
    owed = await books.owed(connection, supplier.id, supplier.currency)
    return SupplierShown(
        id=supplier.id,
        name=supplier.name,
        currency=supplier.currency,
        payable=money(owed.payable, owed.currency),
        cost_to_date=money(owed.cost_to_date, owed.currency),
        created_at=at(supplier.created_at_ns),
    )


async def _current(connection: Connection, endpoint: EndpointRecord) -> EndpointShown:
    current = await prices.currents(connection, endpoint.purchase_tariff_id)
    return _endpoint(endpoint, current[endpoint.purchase_tariff_id])


def _endpoint(endpoint: EndpointRecord, tariff: PurchaseTariff) -> EndpointShown:
    return EndpointShown(
        id=endpoint.id,
        site=endpoint.site,
        supplier_id=endpoint.supplier_id,
        model=endpoint.model_id,
        base_url=endpoint.base_url,
        upstream_model=endpoint.upstream_model,
        api_key_set=bool(endpoint.sealed_key),
        disconnect=endpoint.disconnect,
        concurrency_max=endpoint.concurrency_max,
        dialect=endpoint.dialect,
        state=endpoint.state,
        purchase=PurchaseShown(
            **rates_shown(tariff.rate, tariff.currency).model_dump(), tariff=tariff.name, currency=tariff.currency
        ),
        created_at=at(endpoint.created_at_ns),
    )
