"""The table of `tokenworks bench open`."""

from typing import TYPE_CHECKING

from tokenworks.cli.bench_books import agree, books_line, counted, lines, missed_lines, of_machine, table

if TYPE_CHECKING:
    from rich.console import Console

    from tokenworks.bench.held import Result


def show(out: "Console", result: "Result") -> None:
    """How many were open, and what they took."""
    table(
        out,
        [
            ("streams open at once on one worker", [result.open_max], ",.0f"),
            ("memory of the worker before, MB", [result.before_mb], ",.1f"),
            ("memory at the top, MB", [result.rss_mb], ",.1f"),
            ("bytes for each stream", [result.bytes_per_stream], ",.0f"),
        ],
    )
    given = result.conditions
    others = counted(result.other_answers)
    lines(
        out,
        [
            (
                f"{given.pace.chunks} chunks of a stream, {given.pace.interval_ms / 1_000:g} s apart; "
                f"{given.accounts:,} accounts, each of which had asked once; {given.endpoints} endpoints, durability "
                f"{given.durability}."
            ),
            _limit(result),
            of_machine(given.machine),
            f"[bold red]Streams that did not end whole: {others}.[/]" if others else "",
            agree("Whole answers counted", result.answers, "usage records posted", result.records),
            books_line(verified=result.verified, failed_checks=result.failed_checks),
            *missed_lines(result.missed),
        ],
    )


def _limit(result: "Result") -> str:
    """A worker has two connections for each stream."""
    if result.asked <= result.allowed:
        return ""
    return (
        f"[bold yellow]This machine lets a process have so few files open (ulimit -Hn) that {result.allowed:,} streams "
        f"are the most; {result.asked:,} were asked for.[/]"
    )
