"""Commands about backups: make one, list them, go back to one.

They work on the data folder, not through the office: a restore is for a system that does not run.
"""
# ruff: noqa: PLC0415

import json as json_text
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from tokenworks.cli.command import JsonOption, Record
from tokenworks.cli.faults import CommandFault, told


class TakeFirst(TyperGroup):
    """A group whose bare name makes a backup: `tokenworks backup --to DIR` is `tokenworks backup take --to DIR`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the word `take` where no command is named."""
        if not ctx.resilient_parsing and (not args or (args[0][:1] == "-" and args[0] not in ctx.help_option_names)):
            args = ["take", *args]
        return super().parse_args(ctx, args)


backup = typer.Typer(cls=TakeFirst, help="Backups of the embedded database; the bare name makes one.")

ToOption = Annotated[
    Path | None, typer.Option("--to", metavar="DIR", help="Folder of the backups.", show_default="the settings'")
]
FromOption = Annotated[
    Path | None, typer.Option("--from", metavar="DIR", help="Folder of the backups.", show_default="the settings'")
]
_COLUMNS = {"backup": "name", "ended (UTC)": "ended_at", "MB": "megabytes", "timeline": "timeline"}


@backup.command("take")
def take(to: ToOption = None, json: JsonOption = False) -> None:
    """Back up the database, running or not, verify the copy, and remove backups that are too old."""
    import asyncio

    from tokenworks.app import backups
    from tokenworks.base import config

    with _explained():
        made = asyncio.run(backups.take(config.load(), to, _teller(quiet=json)))
        if json:
            typer.echo(json_text.dumps(_shown(made)))
        else:
            typer.echo(f"{made.name}: {made.bytes >> 20:,} MB, verified.")


@backup.command("list")
def list_backups(where: FromOption = None, json: JsonOption = False) -> None:
    """List the backups, oldest first."""
    from tokenworks.app import backups
    from tokenworks.base import config
    from tokenworks.cli import render

    with _explained():
        found = [_shown(each) for each in backups.listed(config.load(), where)]
        if json:
            typer.echo(json_text.dumps({"items": found}))
        else:
            render.table("backups", found, _COLUMNS)


def restore(
    to: Annotated[str, typer.Option(metavar="TIME", help="A time, or `latest`.")],
    where: FromOption = None,
    json: JsonOption = False,
) -> None:
    """Put the database of a stopped system back to a time; the workers ship again what it lost."""
    import asyncio

    from tokenworks.app import backups
    from tokenworks.base import config

    with _explained():
        aside = asyncio.run(backups.restore(config.load(), to, where, _teller(quiet=json)))
        if json:
            typer.echo(json_text.dumps({"restored_to": to, "kept_aside": str(aside) if aside else None}))
        else:
            typer.echo("Restored. Start the system: it grants again when its workers have shipped what was lost.")


@contextmanager
def _explained() -> Generator[None]:
    from tokenworks.app.up import FAULTS, sentence
    from tokenworks.base.postgres_backup import BackupFault

    with told():
        try:
            yield
        except BackupFault as fault:
            raise CommandFault(f"{fault}.") from fault
        except FAULTS as fault:
            raise CommandFault(f"{sentence(fault)}.") from fault


def _teller(*, quiet: bool) -> Callable[[str], None]:
    def say(sentence: str) -> None:
        if not quiet:
            typer.echo(sentence, err=True)

    return say


def _shown(made: Any) -> Record:
    from tokenworks.base import clock

    return {
        "name": made.name,
        "started_at": clock.iso(made.started_at_ns),
        "ended_at": clock.iso(made.ended_at_ns),
        "timeline": made.timeline,
        "megabytes": made.bytes >> 20,
        "bytes": made.bytes,
    }
