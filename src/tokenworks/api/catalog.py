"""Routes of models, tariffs and offers. A change of the catalog is published to the gateways at once."""

from typing import Literal

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, Field

from tokenworks.api.commands import Command, once
from tokenworks.api.office import Connection, Office
from tokenworks.api.shapes import Amount, Body, Cursor, Limit, Number, Page, Rates, at, money, number, page, smallest
from tokenworks.base import clock
from tokenworks.core import snapshot
from tokenworks.core.amounts import AmountFault, scale
from tokenworks.core.bounds import ImageBound
from tokenworks.core.commands import invalid
from tokenworks.core.tariff import Rate, Stopped
from tokenworks.core.tiers import DEFAULT, Tier
from tokenworks.plant import models
from tokenworks.shop import offers, parties, tariffs
from tokenworks.shop.offers import Offer
from tokenworks.shop.tariffs import Published

router = APIRouter(tags=["catalog"])


class ImageBody(Body):
    """What an image costs a model that sees: `tokens_max` at most, at low detail `tokens_low` if that is not 0.

    With `tile_pixels` it is also at most `tokens_base`, and `tokens_per_tile` for each tile of so many pixels by so
    many. `urls`: its endpoints may fetch images from wherever a customer says; else only data URLs are taken.
    """

    tokens_max: int
    tokens_low: int = 0
    tile_pixels: int = 0
    tokens_per_tile: int = 0
    tokens_base: int = 0
    urls: bool = False


class ModelBody(Body):
    """A model as customers know it. `output_max` left out is the whole context window.

    `hidden_reasoning`: it may write output tokens that no stream shows, so all that it may write is always reserved.
    `apis`: what it is offered on; `chat` means chat completions, responses and messages.
    Without `image` it takes no images. `thinking` is how it is made to think where that is asked for.
    """

    id: str
    context_window: int
    output_max: int | None = None
    owned_by: str = ""
    bytes_per_token: int = 4
    hidden_reasoning: bool = False
    apis: list[snapshot.Api] = Field(default_factory=lambda: ["chat"])
    image: ImageBody | None = None
    thinking: snapshot.Thinks = "none"


class ModelShown(BaseModel):
    """A model as customers know it."""

    id: str
    context_window: int
    output_max: int
    owned_by: str
    bytes_per_token: int
    hidden_reasoning: bool
    apis: list[snapshot.Api]
    image: ImageBody | None
    thinking: snapshot.Thinks
    created_at: str


class TariffBody(Body):
    """A tariff, or its next version. `rates` by `model/tier`, either may be `*`; prices of one million tokens.

    `stopped`: an answer that content safety stops is charged for what was `passed` on, for all that was `generated`, or
    for `nothing`.
    """

    id: str
    unit: str
    rates: dict[str, Rates]
    rounding: Literal["up", "half_up"] = "half_up"
    stopped: Stopped = "passed"


class RatesShown(BaseModel):
    """Prices of one million tokens by class."""

    input: Number
    cached_input: Number
    cache_write: Number
    output: Number
    reasoning: Number


class TariffShown(BaseModel):
    """One version of a tariff. `name` is what usage records keep."""

    id: str
    version: int
    name: str
    unit: str
    rates: dict[str, RatesShown]
    rounding: Literal["up", "half_up"]
    stopped: Stopped
    published_at: str


class OfferBody(Body):
    """A package: what it grants for which price, tax included, for how long, drawn down by which tariff.

    Of kind `credit`, `grant` is the limit of each period of `validity`, and `price` what the whole limit costs when it
    is spent; the `carrier` puts it on the phone bill, or the `customer` pays an invoice. It is drawn after packages
    unless its priority says otherwise.
    """

    id: str
    name: str
    price: Amount
    grant: Amount
    tariff: str
    validity: str = "P1M"
    tier: Tier = DEFAULT
    models: list[str] = Field(default_factory=list)
    priority: int | None = None
    kind: Literal["prepaid", "credit"] = "prepaid"
    payer: Literal["carrier", "customer"] = "carrier"
    seller: str = ""
    source: str = ""
    legal_entity_id: str = ""


class OfferShown(OfferBody):
    """A package in the catalog."""

    created_at: str


@router.get("/models")
async def list_models(office: Office, limit: Limit = 50, cursor: Cursor = "") -> Page[ModelShown]:
    """Models that are registered, served or not."""
    async with office.pool.connection() as connection:
        return page(await models.listed(connection, limit, cursor), limit, model_shown)


@router.post("/models", status_code=201)
async def add_model(office: Office, command: Command, body: ModelBody) -> ModelShown:
    """Register a model."""

    async def work(connection: Connection) -> ModelShown:
        return model_shown(await models.add(connection, new_model(body, office.wall_ns())))

    added = await once(office, command, ModelShown, work)
    await office.catalog_changed()
    return added


@router.get("/tariffs")
async def list_tariffs(office: Office, limit: Limit = 50, cursor: Cursor = "") -> Page[TariffShown]:
    """Tariffs at their current versions."""
    async with office.pool.connection() as connection:
        found = await tariffs.listed(connection, limit, cursor)
    following = found[-1].tariff.id if len(found) == limit else None
    return Page(items=[_tariff(published) for published in found], next=following)


@router.post("/tariffs", status_code=201)
async def publish_tariff(office: Office, command: Command, body: TariffBody) -> TariffShown:
    """Publish a tariff, or the next version of one; what is the same already makes no new version."""

    async def work(connection: Connection) -> TariffShown:
        given = {selector: rate(prices, body.unit, f"rates.{selector}") for selector, prices in body.rates.items()}
        terms = (body.rounding, body.stopped)
        return _tariff(await tariffs.publish(connection, body.id, body.unit, given, office.wall_ns(), *terms))

    published = await once(office, command, TariffShown, work)
    await office.catalog_changed()
    return published


@router.get("/tariffs/{name}")
async def show_tariff(office: Office, name: str) -> TariffShown:
    """A tariff at its current version (`personal`) or at one of them (`personal@1`)."""
    async with office.pool.connection() as connection:
        return _tariff(await tariffs.get(connection, name))


@router.get("/offers")
async def list_offers(office: Office, limit: Limit = 50, cursor: Cursor = "") -> Page[OfferShown]:
    """Offers that can be ordered."""
    async with office.pool.connection() as connection:
        return page(await offers.listed(connection, limit, cursor), limit, _offer)


@router.post("/offers", status_code=201)
async def add_offer(office: Office, command: Command, body: OfferBody) -> OfferShown:
    """Put an offer into the catalog."""

    async def work(connection: Connection) -> OfferShown:
        entity = (
            await parties.legal_entity(connection, body.legal_entity_id, "legal_entity_id")
            if body.legal_entity_id
            else await parties.only_legal_entity(connection)
        )
        offer = _new_offer(body, entity.id, body.seller or entity.name, office.wall_ns())
        return _offer(await offers.add(connection, offer))

    return await once(office, command, OfferShown, work)


@router.get("/offers/{offer_id}")
async def show_offer(office: Office, offer_id: str) -> OfferShown:
    """One offer."""
    async with office.pool.connection() as connection:
        return _offer(await offers.get(connection, offer_id))


def rate(prices: Rates, unit: str, field: str) -> Rate:
    """The rate that prices per million name, in the smallest part of the unit."""
    try:
        scale(unit)
    except AmountFault as fault:
        raise invalid(f"{fault}.", "unit") from fault
    read = smallest(prices.input, unit, f"{field}.input")
    written = smallest(prices.output, unit, f"{field}.output")

    def given(price: Number | None, name: str, otherwise: int) -> int:
        return otherwise if price is None else smallest(price, unit, f"{field}.{name}")

    return Rate(
        input=read,
        cached_input=given(prices.cached_input, "cached_input", read),
        cache_write=given(prices.cache_write, "cache_write", read),
        output=written,
        reasoning=given(prices.reasoning, "reasoning", written),
    )


def rates_shown(shown: Rate, unit: str) -> RatesShown:
    """A rate in whole units."""
    return RatesShown(
        input=number(shown.input, unit),
        cached_input=number(shown.cached_input, unit),
        cache_write=number(shown.cache_write, unit),
        output=number(shown.output, unit),
        reasoning=number(shown.reasoning, unit),
    )


def new_model(body: ModelBody, at_ns: int) -> snapshot.Model:
    """The model that a command describes."""
    return snapshot.Model(
        id=body.id,
        context_window=body.context_window,
        output_max=body.context_window if body.output_max is None else body.output_max,
        owned_by=body.owned_by,
        created_s=at_ns // clock.SECOND,
        bytes_per_token=body.bytes_per_token,
        hidden_reasoning=body.hidden_reasoning,
        apis=tuple(body.apis),
        image=ImageBound(**body.image.model_dump()) if body.image else None,
        thinking=body.thinking,
    )


def model_shown(model: snapshot.Model) -> ModelShown:
    """A model as the API shows it."""
    return ModelShown(
        id=model.id,
        context_window=model.context_window,
        output_max=model.output_max,
        owned_by=model.owned_by,
        bytes_per_token=model.bytes_per_token,
        hidden_reasoning=model.hidden_reasoning,
        apis=list(model.apis),
        image=ImageBody(**msgspec.structs.asdict(model.image)) if model.image else None,
        thinking=model.thinking,
        created_at=at(model.created_s * clock.SECOND),
    )


def _tariff(published: Published) -> TariffShown:
    tariff = published.tariff
    return TariffShown(
        id=tariff.id,
        version=tariff.version,
        name=tariff.name,
        unit=tariff.unit,
        rates={selector: rates_shown(found, tariff.unit) for selector, found in tariff.rates.items()},
        rounding=tariff.rounding,
        stopped=tariff.stopped,
        published_at=at(published.published_at_ns),
    )


def _priority(body: OfferBody) -> int:
    if body.priority is not None:
        return body.priority
    return offers.CREDIT_PRIORITY if body.kind == "credit" else offers.PRIORITY


def _new_offer(body: OfferBody, legal_entity_id: str, seller: str, at_ns: int) -> Offer:
    return Offer(
        id=body.id,
        legal_entity_id=legal_entity_id,
        name=body.name,
        seller=seller,
        source=body.source,
        price=smallest(body.price.amount, body.price.unit, "price"),
        currency=body.price.unit,
        granted=smallest(body.grant.amount, body.grant.unit, "grant"),
        unit=body.grant.unit,
        validity=body.validity,
        tariff_id=body.tariff,
        tier=body.tier,
        models=tuple(body.models),
        priority=_priority(body),
        created_at_ns=at_ns,
        kind=body.kind,
        payer=body.payer,
    )


def _offer(offer: Offer) -> OfferShown:
    return OfferShown(
        id=offer.id,
        name=offer.name,
        price=money(offer.price, offer.currency),
        grant=money(offer.granted, offer.unit),
        tariff=offer.tariff_id,
        validity=offer.validity,
        tier=offer.tier,
        models=list(offer.models),
        priority=offer.priority,
        kind=offer.kind,
        payer=offer.payer,
        seller=offer.seller,
        source=offer.source,
        legal_entity_id=offer.legal_entity_id,
        created_at=at(offer.created_at_ns),
    )
