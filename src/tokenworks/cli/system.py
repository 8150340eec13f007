"""Commands about the whole system: start it, see its whole story, check its books.

Their work is imported when they run, so that `tokenworks --help` does not wait for it.
"""
# ruff: noqa: PLC0415

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from tokenworks.cli.command import JsonOption
from tokenworks.cli.faults import told


def up(json: JsonOption = False) -> None:
    """Start Tokenworks on this machine and stay in the foreground; Ctrl-C stops it."""
    from tokenworks.app.up import up as run
    from tokenworks.base import config
    from tokenworks.cli import welcome

    with told():
        raise typer.Exit(run(config.load(), welcome.as_json if json else welcome.in_words))


def gateway(json: JsonOption = False) -> None:
    """Start only gateway workers, for another machine whose NATS the settings name; Ctrl-C stops them."""
    from tokenworks.app.machine import gateway as run
    from tokenworks.base import config
    from tokenworks.cli import welcome

    with told():
        raise typer.Exit(run(config.load(), welcome.gateway_as_json if json else welcome.gateway_in_words))


def demo(
    json: JsonOption = False,
    keep: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the data in this new folder.", show_default="thrown away")
    ] = None,
) -> None:
    """Sell, serve, meter and bill real tokens in a throw-away system, and check that it adds up."""
    from tokenworks.base import config
    from tokenworks.cli import demo as scene

    with told():
        outcome = scene.play(config.load(), keep, quiet=json)
        if json:
            typer.echo(json_text.dumps(outcome.result(), ensure_ascii=False))
        raise typer.Exit(0 if outcome.verified else 1)


def verify(
    json: JsonOption = False,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Data folder of a running or stopped system.", show_default="the settings'"),
    ] = None,
    database: Annotated[str, typer.Option(metavar="URL", help="PostgreSQL to check instead.")] = "",
) -> None:
    """Check every invariant of the books, read-only; exit code 1 on any discrepancy."""
    from tokenworks.base import config
    from tokenworks.cli import verify as inspection

    with told():
        report = inspection.check(config.load(), data, database)
        inspection.show(report, as_json=json)
        raise typer.Exit(0 if report.ok else 1)
