"""Commands that happen once: a POST with an `Idempotency-Key` gives its first answer again, whoever repeats it.

The answer is kept in the command's own transaction, so there is no moment in which only one of them exists. Commands
that reach beyond the database (orders) or bring a transaction of their own (bills) are repeatable by the id of what
they make; for them the key stands for that id. Secrets are not kept: a repeated answer comes without them.
"""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import msgspec
from fastapi import Depends, Header, Request
from pydantic import BaseModel

from tokenworks.api.office import Connection, OfficeContext
from tokenworks.base import ids
from tokenworks.core.commands import CommandCode, CommandRefused, invalid
from tokenworks.shop import sealed as shop_sealed
from tokenworks.supply import sealed as supply_sealed

_KEY_LENGTH_MAX = 255

_Answer = TypeVar("_Answer", bound=BaseModel)


class CommandId(msgspec.Struct, frozen=True):
    """What makes two commands the same one; no key means that each is its own."""

    key: bytes | None
    body_digest: bytes


async def _command_id(
    request: Request, idempotency_key: Annotated[str | None, Header(max_length=_KEY_LENGTH_MAX)] = None
) -> CommandId:
    body = await request.body()
    if idempotency_key is None:
        return CommandId(None, b"")
    if not idempotency_key:
        raise invalid("Idempotency-Key is empty.", "Idempotency-Key")
    same_whatever_the_spaces = msgspec.json.encode(msgspec.json.decode(body or b"null"), order="deterministic")
    return CommandId(
        hashlib.sha256(f"{request.url.path}\n{idempotency_key}".encode()).digest(),
        hashlib.sha256(same_whatever_the_spaces).digest(),
    )


Command = Annotated[CommandId, Depends(_command_id)]


async def once(
    office: OfficeContext,
    command: CommandId,
    answer_type: type[_Answer],
    work: Callable[[Connection], Awaitable[_Answer]],
    secrets: frozenset[str] = frozenset(),
) -> _Answer:
    """Do the work in one sealed transaction, or give the answer of the first time. `secrets`: fields never kept."""
    now_ns = office.wall_ns()
    async with shop_sealed.transaction(office.pool, now_ns, supply_sealed.SEALED) as connection:
        kept = await _kept(connection, command)
        if kept is not None:
            return answer_type.model_validate(kept)
        answer = await work(connection)
        await _keep(connection, command, answer.model_dump_json(exclude=set(secrets), by_alias=True), now_ns)
        return answer


async def named(office: OfficeContext, command: CommandId, prefix: str) -> str:
    """The id of what this command makes: a new one the first time, the same one ever after.

    Where a restored ledger has forgotten the first time, the new one differs in nothing but its time (`ids.timeless`).
    """
    if command.key is None:
        return ids.new(prefix)
    now_ns = office.wall_ns()
    async with shop_sealed.transaction(office.pool, now_ns, supply_sealed.SEALED) as connection:
        kept = await _kept(connection, command)
        if kept is not None:
            return kept["id"]
        name = ids.repeatable(prefix, hashlib.sha256(command.key + command.body_digest).digest())
        await _keep(connection, command, msgspec.json.encode({"id": name}).decode(), now_ns)
        return name


async def _kept(connection: Connection, command: CommandId) -> dict[str, str] | None:
    if command.key is None:
        return None
    cursor = await connection.execute(
        "SELECT body_digest, answer FROM command_answer WHERE command_key = %s", (command.key,)
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    if bytes(row[0]) != command.body_digest:
        raise CommandRefused(
            CommandCode.IDEMPOTENCY_CONFLICT,
            "This Idempotency-Key was used before with another body.",
            "Idempotency-Key",
        )
    return row[1]


async def _keep(connection: Connection, command: CommandId, answer: str, at_ns: int) -> None:
    if command.key is not None:
        await connection.execute(
            "INSERT INTO command_answer (command_key, body_digest, answer, at_ns) VALUES (%s, %s, %s::jsonb, %s)",
            (command.key, command.body_digest, answer, at_ns),
        )
