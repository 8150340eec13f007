"""Commands about master keys, which seal the keys of suppliers in the database."""

from tokenworks.cli.command import Columns, Session, command, group

secrets = group("Master keys: what seals the keys of suppliers; only their ids are ever shown.")

_COLUMNS: Columns = {
    "master key": "id",
    "seals": lambda entry: "now" if entry["seals"] else "",
    "endpoints sealed": "sealed_endpoints",
    "missing": lambda entry: "missing" if entry["missing"] else "",
}


@command(secrets, "list")
def list_secrets(session: Session) -> None:
    """List master keys, what each seals, and those that are missing from the file."""
    session.show_list("/secrets", session.office.get("/secrets")["items"], _COLUMNS)


@command(secrets, "add-key")
def add_key(session: Session) -> None:
    """Make a new master key, which seals from now on; copy the file to other gateway machines at once."""
    session.add("/secrets/keys")


@command(secrets, "reseal")
def reseal(session: Session) -> None:
    """Seal the keys of all endpoints again, with the newest master key."""
    session.add("/secrets/reseal")
