"""`tokenworks export`: the ledger as a file for beancount or hledger, whole or not at all."""
# ruff: noqa: PLC0415

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from tokenworks.cli.command import Session
from tokenworks.cli.faults import CommandFault
from tokenworks.cli.parties import LegalEntityOption

_LAST_LINE = b"transactions, complete\n"


class Format(StrEnum):
    """Formats of plain-text accounting."""

    BEANCOUNT = "beancount"
    HLEDGER = "hledger"


def export(
    session: Session,
    file: Annotated[str, typer.Argument(help="File to write, or - for standard output.")],
    form: Annotated[Format, typer.Option("--format", help="Whose grammar.")],
    begin: Annotated[
        str | None,
        typer.Option("--from", metavar="TIME", help="Postings from this time on (RFC 3339).", show_default="the first"),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="And before this time.", show_default="the last")
    ] = None,
    legal_entity: LegalEntityOption = "",
) -> None:
    """Write the ledger as plain-text accounting: a transaction for each posting, balances at both ends."""
    pieces = session.office.text("/ledger/export", format=form.value, from_=begin, to=to, legal_entity=legal_entity)
    if file == "-":
        _check_whole(_write(pieces, sys.stdout.buffer))
        return
    from tokenworks.base.atomic import replacing

    with replacing(Path(file)) as out:
        _check_whole(_write(pieces, out))
    session.show({"file": file, "format": form.value, "bytes": Path(file).stat().st_size})


def _write(pieces: Iterable[bytes], out: BinaryIO) -> bytes:
    """Pass the pieces on; gives the end of the last ones."""
    end = b""
    for piece in pieces:
        out.write(piece)
        end = (end + piece)[-len(_LAST_LINE) :]
    out.flush()
    return end


def _check_whole(end: bytes) -> None:
    if end != _LAST_LINE:
        raise CommandFault(
            "The office broke off before the end of the books.", "Try again; a file is only replaced by a whole one."
        )
