"""Builds the snapshot of the catalog that gateways work from, out of the rooms that own its parts.

A model without an endpoint in service is in it too: customers may see it, and learn that nobody serves it now. When
and how the snapshot is published is the office's.
"""

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.core.snapshot import Catalog, Endpoint
from tokenworks.plant import models, registry
from tokenworks.plant.registry import EndpointRecord
from tokenworks.shop import tariffs
from tokenworks.supply import prices
from tokenworks.supply.prices import PurchaseTariff

Connection = AsyncConnection[TupleRow]


async def build(connection: Connection, built_at_ns: int) -> Catalog:
    """The catalog as the database has it now. Each one built has a higher version than those before."""
    # Taken before the rows are read: of two catalogs built at once, the later version has seen no less.
    version = await _next_version(connection)
    current = await prices.currents(connection)
    return Catalog(
        version=version,
        built_at_ns=built_at_ns,
        models={model.id: model for model in await models.everything(connection)},
        endpoints=tuple(
            _endpoint(endpoint, current[endpoint.purchase_tariff_id])
            for endpoint in await registry.in_service(connection)
        ),
        tariffs=await tariffs.currents(connection),
    )


async def _next_version(connection: Connection) -> int:
    cursor = await connection.execute("SELECT nextval('catalog_version')")
    row = await cursor.fetchone()
    if row is None:
        raise LookupError("the sequence of catalog versions gave nothing")
    return int(row[0])


def _endpoint(endpoint: EndpointRecord, price: PurchaseTariff) -> Endpoint:
    return Endpoint(
        id=endpoint.id,
        supplier_id=endpoint.supplier_id,
        model=endpoint.model_id,
        base_url=endpoint.base_url,
        upstream_model=endpoint.upstream_model,
        api_key=endpoint.sealed_key,
        tariff=price.name,
        currency=price.currency,
        rate=price.rate,
        rounding=price.rounding,
        disconnect=endpoint.disconnect,
        concurrency_max=endpoint.concurrency_max,
        dialect=endpoint.dialect,
    )
