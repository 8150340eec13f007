"""Snapshots: what a gateway worker knows of the business, immutable and versioned.

The catalog (models, endpoints, tariffs) is small and travels whole; keys are looked up one by one and remembered. The
office builds both from the database; the gateway never sees the database.
"""

from typing import Literal

import msgspec

from tokenworks.core.amounts import Rounding
from tokenworks.core.bounds import ImageBound, InputBound
from tokenworks.core.limits import Limits
from tokenworks.core.tariff import Rate, Tariff

Api = Literal["chat", "completions", "embeddings", "moderations"]
"""What a model is offered on. `chat` is every API that is made a chat completion of: messages, responses."""


Thinks = Literal["none", "effort", "template", "budget"]
"""How a model is made to think: not at all, by `reasoning_effort`, by its template, by `thinking` with a budget."""

Spoken = Literal["openai", "anthropic", "responses"]
"""Whose API an endpoint serves. `responses` is OpenAI's with responses that the endpoint keeps, under their ids."""

Served = Literal[Api, "responses"]
"""What an endpoint can be asked for. `responses` are those that it keeps; they belong to `chat`."""


class Model(msgspec.Struct, frozen=True):
    """A model as customers know it. `hidden_reasoning`: it may write output tokens that no stream shows.

    All endpoints of a model serve all of its `apis`. Without an `image` bound it takes no images.
    """

    id: str
    context_window: int
    output_max: int
    owned_by: str
    created_s: int
    formula: InputBound = InputBound()
    bytes_per_token: int = 4
    hidden_reasoning: bool = False
    apis: tuple[Api, ...] = ("chat",)
    image: ImageBound | None = None
    thinking: Thinks = "none"


class Endpoint(msgspec.Struct, frozen=True):
    """One place that serves a model, from a supplier at a purchase price. `base_url` ends before `/chat/completions`.

    `api_key` is sealed on its way to the gateways, which open it. `disconnect`: when the customer goes away, `stop` the
    endpoint or `drain` its answer. `concurrency_max`: requests that may run there at once, of all workers together; 0
    sets no limit.
    """

    id: str
    supplier_id: str
    model: str
    base_url: str
    upstream_model: str
    api_key: str
    tariff: str
    currency: str
    rate: Rate
    rounding: Rounding = "half_up"
    disconnect: Literal["stop", "drain"] = "stop"
    concurrency_max: int = 0
    dialect: Spoken = "openai"


class Catalog(msgspec.Struct, frozen=True):
    """Everything of the catalog, at one version. Tariffs by id, at their current version."""

    version: int
    built_at_ns: int
    models: dict[str, Model]
    endpoints: tuple[Endpoint, ...]
    tariffs: dict[str, Tariff]


class Key(msgspec.Struct, frozen=True):
    """Who a key belongs to. `refused` is the stable code that a use of the key is refused with, or empty.

    `limits` is None for a key that neither itself nor its customer has any.
    """

    key_id: str
    legal_entity_id: str
    customer_id: str
    billing_account_id: str
    refused: str = ""
    limits: Limits | None = None
