"""Models as customers know them: the registry's rows, read and added. Who serves a model is `plant.registry`'s."""

import re
from typing import get_args

import msgspec
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from tokenworks.base import clock
from tokenworks.core.bounds import ImageBound, InputBound
from tokenworks.core.commands import conflict, invalid, not_found
from tokenworks.core.snapshot import Api, Model

Connection = AsyncConnection[TupleRow]

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")
_SELECT = """SELECT id, owned_by, context_window, output_max, bytes_per_token, tokens_per_request, tokens_per_message,
    tokens_per_tool, tokens_per_1000_bytes, created_at_ns, hidden_reasoning, apis,
    image_tokens_max, image_tokens_low, image_tile_pixels,
    image_tokens_per_tile, image_tokens_base, image_urls, thinking FROM model """
_INSERT = """INSERT INTO model (id, owned_by, context_window, output_max, bytes_per_token, tokens_per_request,
        tokens_per_message, tokens_per_tool, tokens_per_1000_bytes, created_at_ns, hidden_reasoning, apis,
        image_tokens_max, image_tokens_low, image_tile_pixels,
        image_tokens_per_tile, image_tokens_base, image_urls, thinking)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""

# No tokens for an image: none is taken.
_NO_IMAGES = ImageBound(0)


async def add(connection: Connection, model: Model) -> Model:
    """Register a model; its id is free to choose and never reused."""
    _check(model)
    cursor = await connection.execute(
        _INSERT,
        (
            model.id,
            model.owned_by,
            model.context_window,
            model.output_max,
            model.bytes_per_token,
            *msgspec.structs.astuple(model.formula),
            model.created_s * clock.SECOND,
            model.hidden_reasoning,
            list(model.apis),
            *msgspec.structs.astuple(model.image or _NO_IMAGES),
            model.thinking,
        ),
    )
    if cursor.rowcount == 0:
        raise conflict(f"The model {model.id!r} exists already.", "id")
    return model


async def get(connection: Connection, model_id: str) -> Model:
    """One model; refused if there is none."""
    cursor = await connection.execute(_SELECT + "WHERE id = %s", (model_id,))
    row = await cursor.fetchone()
    if row is None:
        raise not_found("model", model_id, "model")
    return _model(row)


async def listed(connection: Connection, limit: int, after: str) -> list[Model]:
    """Models by id. `after` is the last id already seen."""
    cursor = await connection.execute(_SELECT + "WHERE id > %s ORDER BY id LIMIT %s", (after, limit))
    return [_model(row) for row in await cursor.fetchall()]


async def everything(connection: Connection) -> list[Model]:
    """All models, for the catalog."""
    cursor = await connection.execute(_SELECT + "ORDER BY id")
    return [_model(row) for row in await cursor.fetchall()]


def _check(model: Model) -> None:
    if not _ID.fullmatch(model.id):
        raise invalid("A model's id has 1 to 128 letters, digits and . _ : / - and begins with no sign.", "id")
    if model.context_window < 1 or model.output_max < 1 or model.bytes_per_token < 1:
        raise invalid("context_window, output_max and bytes_per_token are at least 1.", "context_window")
    if model.output_max > model.context_window:
        raise invalid("output_max cannot exceed context_window.", "output_max")
    image = model.image
    if image is not None and (image.tokens_max < 1 or min(msgspec.structs.astuple(image)) < 0):
        raise invalid("An image has a tokens_max of at least 1, and nothing of it is below 0.", "image")
    unknown = [api for api in model.apis if api not in get_args(Api)]
    if unknown or not model.apis or len(set(model.apis)) < len(model.apis):
        raise invalid(f"apis names at least one of {', '.join(get_args(Api))}, each once.", "apis")


def _model(row: TupleRow) -> Model:
    return Model(
        id=row[0],
        owned_by=row[1],
        context_window=row[2],
        output_max=row[3],
        bytes_per_token=row[4],
        formula=InputBound(*row[5:9]),
        created_s=row[9] // clock.SECOND,
        hidden_reasoning=row[10],
        apis=tuple(row[11]),
        image=ImageBound(*row[12:18]) if row[12] else None,
        thinking=row[18],
    )
