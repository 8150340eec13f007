"""Commands about who buys: legal entities, customers and their keys."""

from enum import StrEnum
from typing import Annotated

import typer

from tokenworks.cli.command import LIMIT, LimitOption, Session, command, group

legal_entities = group("Sellers of record: each owns its customers, offers, tax rules and books.")
customers = group("Customers: individuals and enterprises that buy.")
keys = group("Keys that customers call the API with.")

CustomerOption = Annotated[str, typer.Option("--customer", metavar="ID", help="The customer.")]
EveryCustomerOption = Annotated[
    str | None, typer.Option("--customer", metavar="ID", help="Only this customer.", show_default="all")
]
LegalEntityOption = Annotated[
    str, typer.Option("--legal-entity", metavar="ID", help="The seller of record.", show_default="the only one")
]

_LEGAL_ENTITY_COLUMNS = {
    "id": "id",
    "name": "name",
    "country": "country",
    "currency": "currency",
    "tax (1/100 %)": "tax_basis_points",
    "time zone": "timezone",
}
_CUSTOMER_COLUMNS = {
    "id": "id",
    "name": "name",
    "kind": "kind",
    "phone": "phone",
    "state": "state",
    "legal entity": "legal_entity_id",
    "billing account": "billing_account_id",
}
_KEY_COLUMNS = {
    "id": "id",
    "name": "name",
    "customer": "customer_id",
    "secret ends": "hint",
    "state": "state",
    "created (UTC)": "created_at",
}


class Kind(StrEnum):
    """Kinds of customers."""

    INDIVIDUAL = "individual"
    ENTERPRISE = "enterprise"


class State(StrEnum):
    """Whether a customer's keys are accepted."""

    ACTIVE = "active"
    SUSPENDED = "suspended"


@command(legal_entities, "list")
def list_legal_entities(session: Session, limit: LimitOption = LIMIT) -> None:
    """List the sellers of record."""
    session.show_page("/legal-entities", _LEGAL_ENTITY_COLUMNS, limit)


@command(legal_entities, "show")
def show_legal_entity(session: Session, legal_entity_id: str) -> None:
    """Show one seller of record."""
    session.show(session.office.get(f"/legal-entities/{legal_entity_id}"))


@command(legal_entities, "add")
def add_legal_entity(
    session: Session,
    legal_entity_id: str,
    name: Annotated[str, typer.Option(help="The seller's full name.")],
    country: Annotated[str, typer.Option(help="ISO 3166 code.")] = "CN",
    currency: Annotated[str, typer.Option(help="Currency of all its prices.")] = "CNY",
    tax_basis_points: Annotated[int, typer.Option(min=0, max=10_000, help="Tax in its prices: 600 is 6 %.")] = 600,
    timezone: Annotated[str, typer.Option(help="Where its days and months begin.")] = "Asia/Shanghai",
) -> None:
    """Add a seller of record."""
    session.add(
        "/legal-entities",
        id=legal_entity_id,
        name=name,
        country=country,
        currency=currency,
        tax_basis_points=tax_basis_points,
        timezone=timezone,
    )


@command(customers, "list")
def list_customers(session: Session, limit: LimitOption = LIMIT) -> None:
    """List customers."""
    session.show_page("/customers", _CUSTOMER_COLUMNS, limit)


@command(customers, "show")
def show_customer(session: Session, customer_id: str) -> None:
    """Show one customer."""
    session.show(session.office.get(f"/customers/{customer_id}"))


@command(customers, "add")
def add_customer(
    session: Session,
    name: str,
    phone: Annotated[str, typer.Option(help="Phone number with country code; its bill pays for orders.")],
    kind: Annotated[Kind, typer.Option(help="Kind of customer.")] = Kind.INDIVIDUAL,
    legal_entity: LegalEntityOption = "",
) -> None:
    """Add a customer."""
    session.add("/customers", name=name, phone=phone, kind=kind.value, legal_entity_id=legal_entity)


@command(customers, "set-state")
def set_customer_state(session: Session, customer_id: str, state: State) -> None:
    """Suspend a customer with all its keys, or let it go on."""
    session.show(session.office.patch(f"/customers/{customer_id}", {"state": state.value}))


@command(keys, "list")
def list_keys(session: Session, customer: EveryCustomerOption = None, limit: LimitOption = LIMIT) -> None:
    """List keys; their secrets are not kept and cannot be shown."""
    session.show_page("/keys", _KEY_COLUMNS, limit, customer=customer)


@command(keys, "show")
def show_key(session: Session, key_id: str) -> None:
    """Show one key."""
    session.show(session.office.get(f"/keys/{key_id}"))


@command(keys, "add")
def add_key(
    session: Session,
    customer: CustomerOption,
    name: Annotated[str, typer.Option(help="What the key is for.")] = "key",
) -> None:
    """Make a key. Its secret is shown once, now."""
    session.add("/keys", customer=customer, name=name)


@command(keys, "revoke")
def revoke_key(session: Session, key_id: str) -> None:
    """Revoke a key: every gateway refuses it within a second."""
    session.show(session.office.delete(f"/keys/{key_id}"))
