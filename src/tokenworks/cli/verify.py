"""`tokenworks verify`: find the books, check them, show what was found."""

import asyncio
from pathlib import Path

import msgspec
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from tokenworks.app import verification
from tokenworks.app.up import sentence
from tokenworks.app.verification import NothingToVerify, Report
from tokenworks.base.config import Settings
from tokenworks.base.database import DatabaseFault
from tokenworks.base.processes import StartFault
from tokenworks.cli import render
from tokenworks.cli.faults import UNREACHABLE, WRONG_USE, CommandFault


def check(settings: Settings, data: Path | None, database: str) -> Report:
    """All checks of the database or data folder named, or of the one the settings name."""
    if data and database:
        raise CommandFault("--data and --database exclude each other.", code=WRONG_USE)
    if data:
        settings = msgspec.structs.replace(settings, data_dir=str(data), database_url="")
    work = verification.of_database(database) if database else verification.of_data_folder(settings)
    try:
        return asyncio.run(work)
    except NothingToVerify as fault:
        raise CommandFault(str(fault), "Name another with --data DIR or --database URL.", UNREACHABLE) from fault
    except (DatabaseFault, StartFault) as fault:
        raise CommandFault(sentence(fault), "Name another with --data DIR or --database URL.", UNREACHABLE) from fault


def show(report: Report, *, as_json: bool) -> None:
    """A table for people, one object for machines."""
    out = render.console()
    if as_json:
        out.print(Text(msgspec.json.encode(report).decode()), soft_wrap=True)
        return
    out.print(checks_table([(each.name, each.ok, each.detail) for each in report.checks]))
    failed = sum(not each.ok for each in report.checks)
    if failed:
        out.print(Text(f"{failed} of {len(report.checks)} checks found a discrepancy.", style="bold red"))
    else:
        out.print(Text(f"All {len(report.checks)} checks hold.", style="bold green"))


def checks_table(checks: list[tuple[str, bool, str]]) -> Table:
    """Checks as rows: result, name, what was seen."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in ("result", "check", "seen"):
        table.add_column(heading, overflow="fold")
    for name, ok, detail in checks:
        mark = Text("holds", style="green") if ok else Text("FAILS", style="bold red")
        table.add_row(mark, Text(name), Text(detail, style="" if not ok else "dim"))
    return table
