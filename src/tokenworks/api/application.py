"""The office's web application: all routes under `/api/v1` behind the admin token, and what needs none."""

from fastapi import APIRouter, Depends, FastAPI

from tokenworks.api import (
    billing,
    books,
    catalog,
    corrections,
    credit,
    epochs,
    errors,
    lake,
    limits,
    parties,
    purchasing,
    sales,
    sandbox_carrier,
    secrets,
    service,
    usage,
    workers,
)
from tokenworks.api.office import OfficeContext, require_admin

ROUTERS = (
    parties.router,
    limits.router,
    catalog.router,
    sales.router,
    credit.router,
    usage.router,
    billing.router,
    corrections.router,
    purchasing.router,
    books.router,
    epochs.router,
    lake.router,
    secrets.router,
    service.router,
    workers.router,
)


def create(office: OfficeContext) -> FastAPI:
    """The application. The sandbox carrier is part of it unless the settings name a real carrier."""
    app = FastAPI(
        title="Tokenworks management API",
        version=office.version,
        # A page that shows the description would load its scripts from the internet; docs/api.md is the page.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
    )
    app.state.office = office
    errors.install(app)
    management = APIRouter(prefix="/api/v1", dependencies=[Depends(require_admin)])
    for router in ROUTERS:
        management.include_router(router)
    app.include_router(management)
    app.include_router(service.probes)
    if not office.settings.carrier_url:
        app.include_router(sandbox_carrier.router(office.pool, office.wall_ns))
    return app
