"""Commands about what is sold: tariffs, offers and orders."""

from enum import StrEnum
from typing import Annotated

import typer

from tokenworks.cli import values
from tokenworks.cli.command import LIMIT, Columns, LimitOption, Record, Session, command, group
from tokenworks.cli.faults import WRONG_USE, CommandFault
from tokenworks.cli.parties import CustomerOption, EveryCustomerOption, LegalEntityOption

tariffs = group("Tariffs: prices of a million tokens by model, tier and token class.")
offers = group("Offers: packages that customers can order.")
orders = group("Orders: offers bought, paid on the phone bill or used on credit.")


class Stopped(StrEnum):
    """What an answer costs that content safety stops."""

    PASSED = "passed"
    GENERATED = "generated"
    NOTHING = "nothing"


def _rates(tariff: Record) -> list[str]:
    """`*/*: 1000000` where all classes cost the same, else class by class."""
    return [
        f"{place}: {next(iter(set(prices.values()))) if len(set(prices.values())) == 1 else _prices(prices)}"
        for place, prices in tariff["rates"].items()
    ]


def _prices(prices: Record) -> str:
    return " ".join(f"{name}={price}" for name, price in prices.items())


_TARIFF_COLUMNS: Columns = {
    "id": "id",
    "version": "version",
    "unit": "unit",
    "rounding": "rounding",
    "price of a million tokens": _rates,
}
_OFFER_COLUMNS = {
    "id": "id",
    "name": "name",
    "price": "price",
    "grant": "grant",
    "validity": "validity",
    "tariff": "tariff",
    "tier": "tier",
    "models": "models",
}
_ORDER_COLUMNS = {
    "id": "id",
    "customer": "customer_id",
    "offer": "offer_id",
    "state": "state",
    "price": "price",
    "net": "net",
    "tax": "tax",
    "bucket": "bucket_id",
}


@command(tariffs, "list")
def list_tariffs(session: Session, limit: LimitOption = LIMIT) -> None:
    """List tariffs at their current versions."""
    session.show_page("/tariffs", _TARIFF_COLUMNS, limit)


@command(tariffs, "show")
def show_tariff(session: Session, tariff_id: str) -> None:
    """Show one tariff."""
    session.show(session.office.get(f"/tariffs/{tariff_id}"))


@command(tariffs, "add")
def add_tariff(
    session: Session,
    tariff_id: str,
    rate: Annotated[
        list[str],
        typer.Option(
            metavar="MODEL/TIER:CLASS=PRICE,…",
            help="Prices of a million tokens: `smollm2-135m/*:input=1000000,output=2000000`, or one price for all "
            "classes: `*/*:1000000`. Cached input and cache writes cost as input, reasoning as output, unless named. "
            "Repeat for more models.",
        ),
    ],
    unit: Annotated[str, typer.Option(help="token, coin, point or a currency code.")] = "token",
    stopped: Annotated[
        Stopped,
        typer.Option(help="What an answer costs that content safety stops: what was passed on, all, or nothing."),
    ] = Stopped.PASSED,
) -> None:
    """Publish a tariff, or the next version of one; published versions never change."""
    rates = dict(values.rate(text, unit) for text in rate)
    session.add("/tariffs", id=tariff_id, unit=unit, rates=rates, stopped=stopped.value)


@command(offers, "list")
def list_offers(session: Session, limit: LimitOption = LIMIT) -> None:
    """List offers."""
    session.show_page("/offers", _OFFER_COLUMNS, limit)


@command(offers, "show")
def show_offer(session: Session, offer_id: str) -> None:
    """Show one offer."""
    session.show(session.office.get(f"/offers/{offer_id}"))


@command(offers, "add")
def add_offer(
    session: Session,
    offer_id: str,
    name: Annotated[str, typer.Option(help="What customers see.")],
    grant: Annotated[str, typer.Option(help="What the package holds, or the credit's limit a period, in its unit.")],
    tariff: Annotated[str, typer.Option(metavar="ID", help="How use draws it down.")],
    price: Annotated[
        str,
        typer.Option(
            help="Price with tax, for example 9.9; of credit, what the whole limit costs. A limit in money "
            "is its own price."
        ),
    ] = "",
    currency: Annotated[str, typer.Option(help="Currency of the price.")] = "CNY",
    unit: Annotated[str, typer.Option(help="Unit: token, coin, point, or for credit a currency.")] = "token",
    validity: Annotated[str, typer.Option(help="How long it, or a period of credit, is valid, ISO 8601.")] = "P1M",
    kind: Annotated[str, typer.Option(help="prepaid, or credit: a limit that is owed as it is spent.")] = "prepaid",
    payer: Annotated[str, typer.Option(help="carrier: the phone bill; customer: by invoice, only credit.")] = "carrier",
    priority: Annotated[
        int | None, typer.Option(help="Lower is drawn first.", show_default="100, of credit 1000")
    ] = None,
    tier: Annotated[str, typer.Option(help="Service tier it buys.")] = "medium",
    model: Annotated[list[str] | None, typer.Option(metavar="ID", help="Only for these models.")] = None,
    legal_entity: LegalEntityOption = "",
) -> None:
    """Add an offer to the catalog."""
    session.add(
        "/offers",
        id=offer_id,
        name=name,
        price=values.amount(price or _own_price(grant, kind, unit, currency), currency, "--price"),
        grant=values.amount(grant, unit, "--grant"),
        kind=kind,
        payer=payer,
        priority=priority,
        validity=validity,
        tariff=tariff,
        tier=tier,
        models=model,
        legal_entity_id=legal_entity,
    )


def _own_price(grant: str, kind: str, unit: str, currency: str) -> str:
    """What an offer without a price costs: a limit in money is owed as it is spent."""
    if (kind, unit) != ("credit", currency):
        raise CommandFault("--price: this offer has no price.", "Only a limit in money is its own price.", WRONG_USE)
    return grant


@command(orders, "list")
def list_orders(session: Session, customer: EveryCustomerOption = None, limit: LimitOption = LIMIT) -> None:
    """List orders."""
    session.show_page("/orders", _ORDER_COLUMNS, limit, customer=customer)


@command(orders, "show")
def show_order(session: Session, order_id: str) -> None:
    """Show one order with its payment."""
    session.show(session.office.get(f"/orders/{order_id}"))


@command(orders, "add")
def add_order(
    session: Session,
    customer: CustomerOption,
    offer: Annotated[str, typer.Option(metavar="ID", help="What to buy.")],
) -> None:
    """Order an offer and pay it on the customer's phone bill, or begin a credit agreement."""
    session.add("/orders", customer=customer, offer=offer, payment="carrier")
