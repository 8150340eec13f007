"""The table of `tokenworks bench whole`."""

from typing import TYPE_CHECKING

from tokenworks.cli.bench_books import agree, books_line, counted, lines, missed_lines, of_machine, table

if TYPE_CHECKING:
    from rich.console import Console

    from tokenworks.bench.whole import Result


def show(out: "Console", result: "Result") -> None:
    """What was reached, what it took, and whether the books agree with the customers."""
    spent_us, given = result.cpu_us_per_request, result.conditions
    there_us = 1_000_000 * given.machine.cores / result.rate
    table(
        out,
        [
            ("charged requests/s", [result.answers_per_s], ",.0f"),
            ("p50 ms, from when a request was due", [result.p50_ms], ",.2f"),
            ("p99 ms", [result.p99_ms], ",.2f"),
            ("most requests under way at once", [result.under_way_most], ",.0f"),
            ("ms from the last answer until everything was posted", [result.posted_after_ms], ",.0f"),
            *[(f"CPU µs per request, {name}", [spent], ".1f") for name, spent in spent_us.items()],
            (f"together, of {there_us:,.0f} that the cores have at this rate", [sum(spent_us.values())], ".1f"),
        ],
    )
    others = counted(result.others) or "none"
    lines(
        out,
        [
            (
                f"{result.rate:,} requests/s for {given.seconds} s of {given.accounts:,} accounts ({given.skew}), "
                f"after each had asked once; {given.workers} workers, at most {given.connections:,} connections, "
                f"{given.endpoints} endpoints, durability {given.durability}."
            ),
            of_machine(given.machine),
            f"Refused or failed: {others}. Due and never sent, because every connection waited: {result.held_back:,}.",
            agree("Answers counted", result.answers, "usage records posted", result.records),
            agree("Tokens counted by the customers", result.tokens_counted, "posted", result.tokens_posted),
            agree("Tokens posted", result.tokens_posted, "charged", result.tokens_charged),
            f"Customers whose own count is not what the books have: {result.differing:,}.",
            books_line(verified=result.verified, failed_checks=result.failed_checks),
            *missed_lines(result.missed),
        ],
    )
