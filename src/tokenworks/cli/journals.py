"""Commands about the journals on this machine's disk, and about damaged ones.

They read the folder of journals of the settings, not the office: journals lie where gateway workers run.
"""
# ruff: noqa: PLC0415

import json as json_text
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from tokenworks.cli.command import JsonOption, group
from tokenworks.cli.faults import CommandFault, told

if TYPE_CHECKING:
    from tokenworks.shipping.salvage import Damage, Unproven

journals = group("Journals of gateway workers on this machine, and what is left of damaged ones.")

_COLUMNS = {
    "journal": "journal_id",
    "worker": "worker",
    "state": "state",
    "bytes": "bytes",
    "kept from": "kept_from",
    "posted through": "posted_through",
    "epoch": "ledger_epoch",
}


@journals.command("list")
def list_journals(json: JsonOption = False) -> None:
    """List the journals on this disk: running, dead, finished and kept, damaged, salvaged."""
    from tokenworks.base import config
    from tokenworks.cli import render
    from tokenworks.shipping import salvage

    with _explained():
        found = [msgspec.to_builtins(each) for each in salvage.standings(config.load().journal_dir)]
        if json:
            typer.echo(json_text.dumps({"items": found}))
        else:
            render.table("journals", found, _COLUMNS)


@journals.command("show")
def show_journal(journal_id: str, json: JsonOption = False) -> None:
    """Show what is wrong with a damaged journal, and what of it could not be posted."""
    from tokenworks.base import config
    from tokenworks.shipping import salvage

    with _explained():
        found = salvage.damage(config.load().journal_dir, journal_id)
        if json:
            typer.echo(json_text.dumps(msgspec.to_builtins(found)))
        else:
            typer.echo("\n".join(_sentences(found)))


@journals.command("salvage")
def salvage_journal(
    journal_id: str,
    legal_entity: Annotated[
        str, typer.Option(metavar="ID", help="Who bears the loss.", show_default="as the journal says")
    ] = "",
    json: JsonOption = False,
) -> None:
    """Book what could not be posted of a damaged journal as our loss; what it cost stays owed to the suppliers."""
    from tokenworks.base import config
    from tokenworks.shipping import salvage

    with _explained():
        booked = salvage.book(config.load(), journal_id, legal_entity)
        if json:
            typer.echo(json_text.dumps({"journal_id": journal_id, "requests": booked}))
        elif booked:
            typer.echo(f"{booked} requests are booked as our loss when the workers have shipped them.")
        else:
            typer.echo("Nothing was left to book; the journal no longer counts as damaged.")


@contextmanager
def _explained() -> Generator[None]:
    from tokenworks.base.journal import JournalFault

    with told():
        try:
            yield
        except JournalFault as fault:
            raise CommandFault(f"{fault}.") from fault


def _sentences(found: "Damage") -> Generator[str]:
    """What a person is told, line by line."""
    yield f"{found.journal_id} of {found.worker}: {found.frames:,} entries can be read."
    for hole in found.holes:
        yield f"From {hole.start:,} to {hole.end:,} nothing can be read."
    if not found.unproven:
        yield "Everything that can be read was posted."
    for each in found.unproven:
        yield _sentence(each)
    if found.unproven:
        yield f"Book these as our loss with `tokenworks journal salvage {found.journal_id}`."


def _sentence(unproven: "Unproven") -> str:
    from tokenworks.base import clock
    from tokenworks.core import amounts

    closing = unproven.closing
    used = ", ".join(
        f"{amounts.exact(charge.amount, charge.unit)} {charge.unit} of bucket {charge.bucket_id}"
        for charge in closing.charges
    )
    cost = ", ".join(
        f"{amounts.exact(attempt.cost, attempt.currency)} {attempt.currency} to {attempt.supplier_id}"
        for attempt in closing.attempts
    )
    return (
        f"At {unproven.position:,}: a request that ended ({closing.ending}) at {clock.iso(closing.closed_at_ns)} used "
        f"{used or 'nothing'} and cost {cost or 'nothing'}; who asked is lost."
    )
