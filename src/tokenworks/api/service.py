"""Routes about the office itself: health for people and machines, metrics for Prometheus."""

import psycopg
from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from psycopg_pool import PoolTimeout

from tokenworks.api.office import Office, OfficeContext

OK = "ok"
_NEEDED = frozenset({"database", "bus"})
_DATABASE_PATIENCE_S = 2

router = APIRouter(tags=["service"])
probes = APIRouter(include_in_schema=False)


@router.get("/health")
async def show_health(office: Office) -> dict[str, str]:
    """The office's version and each part: `ok`, or what is wrong."""
    parts = await _parts(office)
    status = OK if all(state == OK for state in parts.values()) else "degraded"
    return {"status": status, "version": office.version, **parts}


@probes.get("/healthz")
async def healthz() -> PlainTextResponse:
    """The process lives."""
    return PlainTextResponse("ok\n")


@probes.get("/readyz")
async def readyz(office: Office) -> PlainTextResponse:
    """The office can do its work: 503 while database or bus is missing."""
    missing = {name: state for name, state in (await _parts(office)).items() if name in _NEEDED and state != OK}
    if not missing:
        return PlainTextResponse("ready\n")
    return PlainTextResponse("".join(f"{name}: {state}\n" for name, state in missing.items()), 503)


@probes.get("/metrics")
async def metrics(office: Office) -> Response:
    """What Prometheus scrapes."""
    return Response(generate_latest(office.metrics), media_type=CONTENT_TYPE_LATEST)


async def _parts(office: OfficeContext) -> dict[str, str]:
    return {"database": await _database(office), **{name: await look() for name, look in office.health.items()}}


async def _database(office: OfficeContext) -> str:
    try:
        async with office.pool.connection(timeout=_DATABASE_PATIENCE_S) as connection:
            await connection.execute("SELECT 1")
    except (psycopg.Error, PoolTimeout) as fault:
        return str(fault).strip().partition("\n")[0] or "does not answer"
    return OK
