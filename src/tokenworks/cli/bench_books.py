"""The tables of `tokenworks bench ledger` and `tokenworks bench metering`."""
# ruff: noqa: PLC0415

from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.text import Text

    from tokenworks.bench import ledger, metering
    from tokenworks.bench.conditions import Machine

Row = tuple[str, "Sequence[float]", str]


def show_ledger(out: "Console", result: "ledger.Result") -> None:
    """The ledger, its yardsticks, and what it costs."""
    runs, given = result.runs, result.conditions
    best = f"one row-locked transaction each, {given.baseline_connections} connections"
    counted = [float(run.counter_per_s) for run in runs if run.counter_per_s is not None]
    rows: list[Row] = [
        ("the ledger, charges/s", [run.charges_per_s for run in runs], ",.0f"),
        (f"{best}, charges/s", [run.baseline_per_s for run in runs], ",.0f"),
        ("the ledger to that", [run.charges_per_s / max(1, run.baseline_per_s) for run in runs], ",.1f"),
        ("the ledger's CPU µs per charge", [run.cpu_us for run in runs], ".1f"),
        ("PostgreSQL's CPU µs per charge", [run.database_cpu_us for run in runs], ".1f"),
    ]
    if counted:
        rows.insert(2, (f"a counter, {given.counter}, charges/s", counted, ",.0f"))
    tried = ", ".join(f"{number}: {rate:,}" for number, rate in given.baseline_tried.items())
    table(out, rows)
    lines(
        out,
        [
            (
                f"Median of {given.runs} runs of {given.seconds} s, in turn; {given.accounts:,} accounts "
                f"({given.skew}), {given.batch:,} charges in a posting, each a transfer of its own."
            ),
            f"The baseline by connections: {tried}.",
            "" if counted else "Neither Redis nor Valkey is installed here: no counter was measured.",
            of_machine(given.machine),
            agree("Charges", sum(run.charges for run in runs), "transfers", result.transfers),
            books_line(verified=result.verified, failed_checks=result.failed_checks),
        ],
    )


def show_metering(out: "Console", result: "metering.Result") -> None:
    """Records in a second, and what each costs in every process on its way."""
    runs, given = result.runs, result.conditions
    table(
        out,
        [
            ("usage records/s, from journal to stored", [run.records_per_s for run in runs], ",.0f"),
            ("the office's CPU µs per record", [run.office_us for run in runs], ".1f"),
            ("PostgreSQL's", [run.database_us for run in runs], ".1f"),
            ("the shipper's", [run.shipper_us for run in runs], ".1f"),
            ("NATS's", [run.bus_us for run in runs], ".1f"),
        ],
    )
    lines(
        out,
        [
            (
                f"Median of {given.runs} runs of {given.records:,} records from {given.journals} journals; "
                f"{given.accounts:,} accounts ({given.skew}), {given.bytes_per_record} journal bytes per record, "
                f"at most {given.ship_batch_bytes:,} in a shipment."
            ),
            of_machine(given.machine),
            agree("Requests written", result.written, "usage records stored", result.stored),
            books_line(verified=result.verified, failed_checks=result.failed_checks),
        ],
    )


def spread(values: "Iterable[float]", form: str) -> str:
    """`18.3 (17.9–19.0)`: the median, and in brackets the smallest and largest."""
    listed = list(values)
    shown = format(median(listed), form)
    return shown if len(listed) == 1 else f"{shown} ({min(listed):{form}}–{max(listed):{form}})"


def contenders(
    out: "Console", headings: tuple[str, ...], rows: "Iterable[tuple[str | Text, ...]]", under: list[str]
) -> None:
    """Contenders in rows, conditions and findings under them."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading in {"", "metering"} else "right")
    for row in rows:
        table.add_row(*row)
    out.print()
    out.print(table)
    out.print()
    for line in under:
        out.print(line, soft_wrap=True)


def books_line(*, verified: bool, failed_checks: tuple[str, ...]) -> str:
    """Whether the books hold, and what does not."""
    books = "[green]hold[/]" if verified else "[bold red]DO NOT HOLD[/]"
    return f"The books {books}." + "".join(f"\n  {each}" for each in failed_checks)


def counted(others: "Mapping[str, int]") -> str:
    """`3 × 503, 1 × 429`."""
    return ", ".join(f"{number:,} × {reason}" for reason, number in others.items())


def table(out: "Console", rows: "Sequence[Row]") -> None:
    """Figures in rows, with the spread of their runs."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    shown = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, show_header=False)
    shown.add_column()
    shown.add_column(justify="right")
    for name, values, form in rows:
        shown.add_row(name, spread(values, form))
    out.print()
    out.print(shown)
    out.print()


def lines(out: "Console", said: list[str]) -> None:
    """Sentences under a table; an empty one is left out."""
    for line in said:
        if line:
            out.print(line, soft_wrap=True)


def missed_lines(missed: tuple[str, ...]) -> list[str]:
    """What was asked for and not reached."""
    return [f"[bold yellow]Missed:[/] {each}." for each in missed]


def of_machine(given: "Machine") -> str:
    """The database's settings, the disk and the processor."""
    database = given.database
    return (
        f"PostgreSQL {database['server_version']}, fsync {database['fsync']}, synchronous_commit "
        f"{database['synchronous_commit']}, {given.fdatasync_us:,} µs for one fdatasync; {given.cores} cores of "
        f"{given.processor}, shared by all."
    )


def agree(first: str, one: int, second: str, other: int) -> str:
    """Two counts that must be equal, and whether they are."""
    verdict = "[green]equal[/]" if one == other else "[bold red]NOT EQUAL[/]"
    return f"{first} {one:,}, {second} {other:,}: {verdict}."
