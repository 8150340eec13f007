"""Commands about what is bought and where it runs: suppliers, endpoints, models."""

from enum import StrEnum
from typing import Annotated

import typer

from tokenworks.cli import values
from tokenworks.cli.command import LIMIT, LimitOption, Session, command, group

suppliers = group("Suppliers: who is paid for generating tokens.")
endpoints = group("Endpoints: URLs with OpenAI's or Anthropic's API that serve a model at a purchase price.")
models = group("Models as customers know them.")

_SUPPLIER_COLUMNS = {
    "id": "id",
    "name": "name",
    "currency": "currency",
    "payable": "payable",
    "cost to date": "cost_to_date",
}
_ENDPOINT_COLUMNS = {
    "id": "id",
    "supplier": "supplier_id",
    "model": "model",
    "URL": "base_url",
    "upstream model": "upstream_model",
    "state": "state",
}
_MODEL_COLUMNS = {
    "id": "id",
    "owned by": "owned_by",
    "context window": "context_window",
    "longest output": "output_max",
}

_PRICE = "Purchase price of a million {} tokens in the supplier's currency, for example 0.3."


class Api(StrEnum):
    """What a model is offered on."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    MODERATIONS = "moderations"


class State(StrEnum):
    """Whether dispatch may choose an endpoint."""

    IN_SERVICE = "in_service"
    OUT_OF_SERVICE = "out_of_service"


class Disconnect(StrEnum):
    """What happens at the endpoint when the customer goes away."""

    STOP = "stop"
    DRAIN = "drain"


class Thinking(StrEnum):
    """How a model is made to think where a customer asks for it."""

    NONE = "none"
    EFFORT = "effort"
    TEMPLATE = "template"
    BUDGET = "budget"


class Dialect(StrEnum):
    """Whose API an endpoint serves."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    RESPONSES = "responses"


@command(suppliers, "list")
def list_suppliers(session: Session, limit: LimitOption = LIMIT) -> None:
    """List suppliers and what each is owed."""
    session.show_page("/suppliers", _SUPPLIER_COLUMNS, limit)


@command(suppliers, "show")
def show_supplier(session: Session, supplier_id: str) -> None:
    """Show one supplier."""
    session.show(session.office.get(f"/suppliers/{supplier_id}"))


@command(suppliers, "add")
def add_supplier(
    session: Session,
    name: str,
    supplier_id: Annotated[str, typer.Option("--id", metavar="ID", help="Its id.", show_default="a new one")] = "",
    currency: Annotated[str, typer.Option(help="Currency it is paid in.")] = "CNY",
) -> None:
    """Add a supplier."""
    session.add("/suppliers", id=supplier_id, name=name, currency=currency)


@command(models, "list")
def list_models(session: Session, limit: LimitOption = LIMIT) -> None:
    """List models."""
    session.show_page("/models", _MODEL_COLUMNS, limit)


@command(models, "show")
def show_model(session: Session, model_id: str) -> None:
    """Show one model."""
    session.show(session.find("/models", "id", model_id))


@command(models, "add")
def add_model(
    session: Session,
    model_id: str,
    context_window: Annotated[int, typer.Option(min=1, help="In tokens.")],
    output_max: Annotated[int | None, typer.Option(min=1, help="Longest output.", show_default="the window")] = None,
    owned_by: Annotated[str, typer.Option(metavar="NAME", help="Who made it.")] = "",
    hidden_reasoning: Annotated[
        bool, typer.Option("--hidden-reasoning", help="It writes tokens that no stream shows: reserve in full.")
    ] = False,
    apis: Annotated[
        list[Api] | None,
        typer.Option("--api", help="What it is offered on; may be given several times.", show_default="chat"),
    ] = None,
    image_tokens: Annotated[
        int | None, typer.Option(min=1, help="Most tokens that an image can be.", show_default="no images")
    ] = None,
    image_tokens_low: Annotated[int, typer.Option(min=0, help="The same at low detail.", show_default="as high")] = 0,
    image_tile: Annotated[
        str,
        typer.Option(metavar="PIXELS:TOKENS:BASE", help="Tiles of an image: side, tokens, and those beside."),
    ] = "",
    image_urls: Annotated[
        bool, typer.Option("--image-urls", help="Its endpoints fetch images from where customers say.")
    ] = False,
    thinking: Annotated[Thinking, typer.Option(help="How it is made to think.")] = Thinking.NONE,
) -> None:
    """Add a model; endpoints that serve it come with `endpoints add`."""
    if image_tokens is None and (image_tokens_low or image_tile or image_urls):
        raise typer.BadParameter("what is said of images needs --image-tokens")
    image = {"tokens_max": image_tokens, "tokens_low": image_tokens_low, "urls": image_urls}
    session.add(
        "/models",
        id=model_id,
        context_window=context_window,
        output_max=output_max,
        owned_by=owned_by,
        hidden_reasoning=hidden_reasoning,
        apis=[api.value for api in apis or (Api.CHAT,)],
        image=image | _tile(image_tile) if image_tokens else None,
        thinking=thinking.value,
    )


@command(endpoints, "list")
def list_endpoints(session: Session, limit: LimitOption = LIMIT) -> None:
    """List endpoints."""
    session.show_page("/endpoints", _ENDPOINT_COLUMNS, limit)


@command(endpoints, "show")
def show_endpoint(session: Session, endpoint_id: str) -> None:
    """Show one endpoint; its API key is never shown."""
    session.show(session.office.get(f"/endpoints/{endpoint_id}"))


@command(endpoints, "add")
def add_endpoint(
    session: Session,
    base_url: Annotated[str, typer.Argument(metavar="URL", help="Ends before /chat/completions, usually in /v1.")],
    supplier: Annotated[str, typer.Option(metavar="ID", help="Who is paid.")],
    model: Annotated[str, typer.Option(metavar="ID", help="The model as customers know it; a new one is added.")],
    input_price: Annotated[str, typer.Option(help=_PRICE.format("input"))],
    output_price: Annotated[str, typer.Option(help=_PRICE.format("output"))],
    cached_input_price: Annotated[str, typer.Option(help=_PRICE.format("cached input"), show_default="as input")] = "",
    cache_write_price: Annotated[str, typer.Option(help=_PRICE.format("cache write"), show_default="as input")] = "",
    endpoint_id: Annotated[str, typer.Option("--id", metavar="ID", help="Its id.", show_default="a new one")] = "",
    upstream_model: Annotated[
        str, typer.Option(metavar="NAME", help="The endpoint's own name of the model.", show_default="as --model")
    ] = "",
    api_key: Annotated[str, typer.Option(help="Key the endpoint asks for; - reads it from standard input.")] = "",
    context_window: Annotated[int | None, typer.Option(min=1, help="Of a new model, in tokens.")] = None,
    output_max: Annotated[int | None, typer.Option(min=1, help="Of a new model: its longest output.")] = None,
    owned_by: Annotated[str, typer.Option(metavar="NAME", help="Of a new model: who made it.")] = "",
    apis: Annotated[
        list[Api] | None,
        typer.Option("--api", help="Of a new model: what it is offered on.", show_default="chat"),
    ] = None,
    disconnect: Annotated[
        Disconnect, typer.Option(help="When a customer goes away: stop the endpoint or drain its answer.")
    ] = Disconnect.STOP,
    concurrency_max: Annotated[
        int | None, typer.Option(min=0, help="Requests that may run there at once.", show_default="no limit")
    ] = None,
    dialect: Annotated[Dialect, typer.Option(help="Whose API it serves.")] = Dialect.OPENAI,
) -> None:
    """Add an endpoint; gateways use it at once, without a restart."""
    bought = {"input": input_price, "output": output_price, "cached_input": cached_input_price}
    bought["cache_write"] = cache_write_price
    purchase = {name: values.currency_price(text, _option(name)) for name, text in bought.items() if text}
    offered = [api.value for api in apis or ()]
    described = {"context_window": context_window, "output_max": output_max, "owned_by": owned_by, "apis": offered}
    about = {name: value for name, value in described.items() if value}
    session.add(
        "/endpoints",
        id=endpoint_id,
        supplier=supplier,
        model={"id": model, **about} if about else model,
        base_url=base_url,
        upstream_model=upstream_model,
        api_key=values.secret(api_key),
        purchase=purchase,
        disconnect=disconnect.value,
        concurrency_max=concurrency_max,
        dialect=dialect.value,
    )


@command(endpoints, "set-state")
def set_endpoint_state(session: Session, endpoint_id: str, state: State) -> None:
    """Take an endpoint out of service, or back into it."""
    session.show(session.office.patch(f"/endpoints/{endpoint_id}", {"state": state.value}))


@command(endpoints, "set-key")
def set_endpoint_key(
    session: Session,
    endpoint_id: str,
    api_key: Annotated[str, typer.Argument(metavar="KEY", help="The endpoint's key; - reads it from standard input.")],
) -> None:
    """Give an endpoint another key; it is sealed in the database and never shown."""
    session.show(session.office.patch(f"/endpoints/{endpoint_id}", {"api_key": values.secret(api_key)}))


@command(endpoints, "set-concurrency")
def set_endpoint_concurrency(session: Session, endpoint_id: str, concurrency_max: int) -> None:
    """Let so many requests run at an endpoint at once, of all workers together; 0 sets no limit."""
    session.show(session.office.patch(f"/endpoints/{endpoint_id}", {"concurrency_max": concurrency_max}))


def _tile(text: str) -> dict[str, int]:
    """`28:1:2` is a token for each 28 by 28 pixels, and two more."""
    if not text:
        return {}
    numbers = text.split(":")
    if len(numbers) != 3 or not all(number.isdecimal() for number in numbers):
        raise typer.BadParameter("has three numbers, for example 512:170:85", param_hint="--image-tile")
    return dict(zip(("tile_pixels", "tokens_per_tile", "tokens_base"), map(int, numbers), strict=True))


def _option(token_class: str) -> str:
    return f"--{token_class.replace('_', '-')}-price"
