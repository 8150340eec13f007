"""The table of `tokenworks bench keys`."""

from typing import TYPE_CHECKING

from tokenworks.cli.bench_books import agree, books_line, counted, lines, of_machine, table

if TYPE_CHECKING:
    from rich.console import Console

    from tokenworks.bench.cold_keys import Result, Times


def show(out: "Console", result: "Result") -> None:
    """What a worker takes beside so many keys, and what a cold one costs its first request."""
    table(
        out,
        [
            ("memory of a fresh worker beside no keys, MB", [result.bare_mb], ",.1f"),
            (f"beside {result.keys:,} keys, MB", [result.fresh_mb], ",.1f"),
            ("after the requests, MB", [result.used_mb], ",.1f"),
            ("what a worker is told of the business, bytes", [result.snapshot_bytes], ",.0f"),
            ("first request with a cold key, p50 ms", [result.cold.p50_ms], ".2f"),
            ("p99 ms", [result.cold.p99_ms], ".2f"),
            ("request with a warm key, p50 ms", [result.warm.p50_ms], ".2f"),
            ("p99 ms", [result.warm.p99_ms], ".2f"),
            ("the office's answer for a key, p50 ms", [result.lookup_p50_ms], ".2f"),
            ("a bare NATS request, p50 ms", [result.nats_rtt_p50_ms], ".2f"),
        ],
    )
    given = result.conditions
    others = counted(result.other_answers)
    lines(
        out,
        [
            (
                f"{result.keys:,} keys of {given.accounts:,} accounts, made at {result.made_per_s:,} a second; one "
                f"worker, which remembers {given.key_cache_entries:,} keys at most; {given.requests_per_s} requests/s, "
                f"durability {given.durability}."
            ),
            of_machine(given.machine),
            _asked("cold", result.cold),
            _asked("warm", result.warm),
            f"[bold red]Other answers: {others}.[/]" if others else "",
            agree("Answers counted", result.answers, "usage records posted", result.records),
            books_line(verified=result.verified, failed_checks=result.failed_checks),
        ],
    )


def _asked(kind: str, times: "Times") -> str:
    return (
        f"{times.requests:,} requests with {kind} keys: the office was asked {times.lookups:,} times, "
        f"{times.lookups_most:,} for any one key at most."
    )
