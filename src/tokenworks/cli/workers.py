"""Commands about gateway workers: what waits in them, and how they find their endpoints."""

from tokenworks.cli.command import Columns, Record, Session, command, group

workers = group("Gateway workers: requests that wait and run in them, endpoints they leave alone.")


def _waiting(record: Record) -> str:
    by_model = (
        f"{model} " + " ".join(f"{tier} {count}" for tier, count in tiers.items() if count)
        for model, tiers in record["waiting"].items()
    )
    return ", ".join(by_model)


def _running(record: Record) -> str:
    return ", ".join(f"{endpoint} {count}" for endpoint, count in record["running"].items())


_COLUMNS: Columns = {
    "worker": "worker",
    "running": _running,
    "waiting": _waiting,
    "endpoints at rest": lambda record: ", ".join(record["resting"]),
}


@command(workers, "list")
def list_workers(session: Session) -> None:
    """List workers heard within five seconds, with their queues and circuit breakers."""
    session.show_list("workers", session.office.get("/workers")["items"], _COLUMNS)
