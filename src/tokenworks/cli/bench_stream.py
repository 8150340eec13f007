"""The table of `tokenworks bench stream`."""

from typing import TYPE_CHECKING

from tokenworks.cli.bench_books import books_line, contenders, spread
from tokenworks.cli.bench_gateway import peers_lines

if TYPE_CHECKING:
    from rich.console import Console

    from tokenworks.bench.stream_figures import Contender, Result

_HEADINGS = (
    "",
    "CPU µs per chunk",
    "office's CPU µs",
    "database's",
    "chunks/s",
    "first event later by ms, p50",
    "p99",
    "memory MB",
    "metering",
)


def show(out: "Console", result: "Result") -> None:
    """Contenders in rows, conditions and findings under them."""
    rows = [(name, *_cells(contender)) for name, contender in result.contenders.items()]
    contenders(out, _HEADINGS, rows, _under(result) + _findings(result))


def _cells(contender: "Contender") -> list[str]:
    runs = contender.runs
    behind = (contender.office_cpu_us_per_chunk, contender.database_cpu_us_per_chunk)
    return [
        spread([run.cpu_us_per_chunk for run in runs], ".1f"),
        *("" if spent is None else f"{spent:.1f}" for spent in behind),
        spread([run.chunks_per_s for run in runs], ",.0f"),
        spread([run.ttft_added_ms.p50 for run in runs], ".2f"),
        spread([run.ttft_added_ms.p99 for run in runs], ".2f"),
        f"{contender.rss_mb:.0f}",
        "yes" if contender.metering else "no",
    ]


def _under(result: "Result") -> list[str]:
    given, direct = result.conditions, result.load_generator
    runs = (
        f"Median of {given.runs} runs of {given.seconds} s, in turn; {given.streams} streams at once of {given.chunks} "
        f"chunks, {given.interval_ms} ms apart, times to the first event with half of them; "
        f"{given.accounts:,} accounts ({given.skew}), {given.endpoints} endpoints."
    )
    alone = (
        f"The load generator alone: {direct.cpu_us_per_chunk:.1f} µs of its own CPU per chunk, "
        f"{direct.chunks_per_s:,.0f} chunks/s, first event after {direct.ttft_ms.p50:.2f} ms (p50), "
        f"{direct.ttft_ms.p99:.2f} ms (p99)."
    )
    system = (
        f"One worker, durability {given.durability}; PostgreSQL {given.machine.database['server_version']}, fsync "
        f"{given.machine.database['fsync']}; {given.machine.cores} cores of {given.machine.processor}, shared by all."
    )
    return [runs, alone, system, *peers_lines(result.peers, result.left_out)]


def _findings(result: "Result") -> list[str]:
    agree = "[green]equal[/]" if result.answers == result.records else "[bold red]NOT EQUAL[/]"
    others = ", ".join(f"{number:,} × {status}" for status, number in result.other_answers.items())
    counted = f"Whole answers counted {result.answers:,}, usage records posted {result.records:,}: {agree}." + (
        f" [bold red]Others: {others}.[/]" if others else ""
    )
    return [counted, books_line(verified=result.verified, failed_checks=result.failed_checks)]
