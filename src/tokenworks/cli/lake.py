"""Commands about the usage lake: what is in it, fill it now, ask it."""
# ruff: noqa: PLC0415

from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from tokenworks.cli.command import Session, command, group
from tokenworks.cli.faults import CommandFault

lake = group("Usage lake: every usage record in Parquet files, for DuckDB and other programs.")

_COLUMNS = {"file": "path", "records": "records", "tokens": "tokens", "from seal": "from_seal", "to": "through_seal"}


@command(lake, "list")
def list_files(session: Session) -> None:
    """List the files of the lake."""
    session.show_list("files", session.office.get("/lake/files")["items"], _COLUMNS)


@command(lake, "export")
def export(session: Session) -> None:
    """Put every usage record into the lake that is not there yet; the office does it by itself now and then."""
    session.add("/lake/exports")


@command(lake, "query")
def query(
    session: Session,
    sql: Annotated[str, typer.Argument(help="One SELECT over usage, charges and attempts.")],
    folder: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The lake's folder.", show_default="the settings'")
    ] = None,
) -> None:
    """Ask the lake's files a question in DuckDB's SQL; needs the folder, and no running system."""
    from tokenworks.base import config
    from tokenworks.meter import lake_files

    try:
        answer = lake_files.query(folder or config.load().lake, sql)
    except lake_files.LakeFault as fault:
        raise CommandFault(str(fault), "`tokenworks lake export` fills the lake.") from fault
    entries = [dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows]
    session.show_list("rows", entries, {name: name for name in answer.columns})


def _plain(value: Any) -> Any:
    """What JSON can say: numbers with decimals and times as text, in nested values too."""
    match value:
        case Decimal():
            return int(value) if value == value.to_integral_value() else str(value)
        case date() | datetime():
            return value.isoformat()
        case list():
            return [_plain(each) for each in cast("list[Any]", value)]
        case dict():
            return {str(name): _plain(each) for name, each in cast("dict[Any, Any]", value).items()}
        case None | bool() | int() | str():
            return value
        case _:
            return str(value)
