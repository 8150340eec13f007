"""Refusals and faults as HTTP answers: one table from codes to statuses, one shape of body."""

from typing import cast

import psycopg
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg_pool import PoolTimeout
from starlette.exceptions import HTTPException

from tokenworks.base import log
from tokenworks.base.vault import VaultFault
from tokenworks.core.commands import CommandCode, CommandRefused

STATUS: dict[CommandCode, int] = {
    CommandCode.UNAUTHORIZED: 401,
    CommandCode.INVALID: 400,
    CommandCode.NOT_FOUND: 404,
    CommandCode.METHOD_NOT_ALLOWED: 405,
    CommandCode.CONFLICT: 409,
    CommandCode.IDEMPOTENCY_CONFLICT: 409,
    CommandCode.PAYMENT_DECLINED: 402,
    CommandCode.CARRIER_UNAVAILABLE: 503,
    CommandCode.DATABASE_UNAVAILABLE: 503,
    CommandCode.LAKE_UNAVAILABLE: 503,
    CommandCode.SECRETS_UNAVAILABLE: 503,
}
_OF_STATUS = {404: CommandCode.NOT_FOUND, 405: CommandCode.METHOD_NOT_ALLOWED}

_log = log.get(__name__)


def install(app: FastAPI) -> None:
    """Answer every expected no in the one shape. Anything else is a fault and left to the process edge."""
    app.add_exception_handler(CommandRefused, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(psycopg.OperationalError, _database)
    app.add_exception_handler(PoolTimeout, _database)
    app.add_exception_handler(VaultFault, _vault)


def answer(code: CommandCode, message: str, field: str = "") -> JSONResponse:
    """The body of every refusal."""
    error = {"code": code.value, "message": message, "field": field or None}
    headers = {"www-authenticate": "Bearer"} if code is CommandCode.UNAUTHORIZED else None
    return JSONResponse({"error": error}, STATUS[code], headers)


async def _refused(_: Request, refusal: Exception) -> JSONResponse:
    found = cast("CommandRefused", refusal)
    return answer(found.code, found.message, found.field)


async def _invalid(_: Request, fault: Exception) -> JSONResponse:
    first = cast("RequestValidationError", fault).errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    if first["type"] == "json_invalid":
        return answer(CommandCode.INVALID, f"The body is no JSON: {first['ctx']['error']}.")
    return answer(CommandCode.INVALID, f"{where or 'The body'}: {first['msg']}.", where)


async def _http(_: Request, fault: Exception) -> JSONResponse:
    found = cast("HTTPException", fault)
    code = _OF_STATUS.get(found.status_code, CommandCode.INVALID)
    return answer(code, f"{found.detail}.")


async def _database(request: Request, fault: Exception) -> JSONResponse:
    reason = str(fault).strip().partition("\n")[0]
    _log.warning("the database does not answer", extra={"path": request.url.path, "reason": reason})
    return answer(CommandCode.DATABASE_UNAVAILABLE, "The database does not answer now. Try again shortly.")


async def _vault(request: Request, fault: Exception) -> JSONResponse:
    _log.error("a secret cannot be sealed or opened", extra={"path": request.url.path, "reason": str(fault)})
    return answer(CommandCode.SECRETS_UNAVAILABLE, f"A secret cannot be sealed or opened: {fault}.")
