"""The table of `tokenworks bench gateway`."""
# ruff: noqa: PLC0415

from typing import TYPE_CHECKING

from tokenworks.cli.bench_books import books_line, contenders, spread

if TYPE_CHECKING:
    from rich.console import Console

    from tokenworks.bench.field import About
    from tokenworks.bench.figures import Contender, Result

_HEADINGS = (
    "",
    "CPU µs per request",
    "office's CPU µs",
    "database's",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "memory MB",
    "metering",
)


def show(out: "Console", result: "Result") -> None:
    """Contenders in rows, conditions and findings under them."""
    from rich.text import Text

    direct = result.load_generator
    alone = (
        Text("load generator alone", style="dim"),
        f"{direct.cpu_us_per_request:.1f}",
        "",
        "",
        f"{direct.rps:,.0f}",
        f"{direct.p50_ms:.2f}",
        f"{direct.p99_ms:.2f}",
    )
    rows = [(name, *_cells(contender)) for name, contender in result.contenders.items()]
    contenders(out, _HEADINGS, [*rows, alone], _under(result) + _findings(result))


def _cells(contender: "Contender") -> list[str]:
    runs = contender.runs
    behind = (contender.office_cpu_us_per_request, contender.database_cpu_us_per_request)
    return [
        spread([run.cpu_us_per_request for run in runs], ".1f"),
        *("" if spent is None else f"{spent:.1f}" for spent in behind),
        spread([run.rps for run in runs], ",.0f"),
        f"{contender.p50_ms:.2f}",
        f"{contender.p99_ms:.2f}",
        f"{contender.rss_mb:.0f}",
        "yes" if contender.metering else "no",
    ]


def _under(result: "Result") -> list[str]:
    given = result.conditions
    runs = (
        f"Median of {given.runs} runs of {given.seconds} s, in turn; {given.connections} connections, "
        f"{given.accounts:,} accounts ({given.skew}), {given.endpoints} endpoints, {given.answer_bytes}-byte answers."
    )
    system = (
        f"One worker, durability {given.durability}; PostgreSQL {given.database['server_version']}, fsync "
        f"{given.database['fsync']}, {given.fdatasync_us:,} µs for one; {given.cores} cores of {given.processor}, "
        "shared by all."
    )
    leases = (
        f"Warm accounts: {result.leases_per_1000_requests:.2f} leases per 1,000 requests, slices of at most "
        f"{result.slice_percent_max:.2f} % of a bucket. A lease takes {result.lease_rtt_p50_ms:.2f} ms (p50), a bare "
        f"NATS request {result.nats_rtt_p50_ms:.2f} ms."
    )
    return [runs, system, *peers_lines(result.peers, result.left_out), leases, *_price_of_every(result)]


def _price_of_every(result: "Result") -> list[str]:
    """What it costs that no answer ends before its journal entries are safe."""
    ours, safest = result.contenders["tokenworks"], result.contenders.get("tokenworks-every")
    if safest is None:
        return []
    cpu = safest.cpu_us_per_request / max(0.01, ours.cpu_us_per_request)
    rps = safest.rps / max(0.01, ours.rps)
    return [
        f"Durability every takes {cpu:.2f} times the CPU time of interval and gives {rps:.2f} times its requests/s."
    ]


def peers_lines(peers: "dict[str, About]", left_out: dict[str, str]) -> list[str]:
    """What each peer runs with and without, and why one is left out."""
    ran = [
        f"{name} {about.version}: {about.workers}; threads: {about.threads}. Off: {', '.join(about.off)}."
        for name, about in peers.items()
    ]
    return ran + [f"[yellow]{name} is left out:[/] {why}." for name, why in left_out.items()]


def _findings(result: "Result") -> list[str]:
    agree = "[green]equal[/]" if result.answers == result.records else "[bold red]NOT EQUAL[/]"
    others = ", ".join(f"{number:,} × {status}" for status, number in result.other_answers.items())
    return [
        f"Answers counted {result.answers:,}, usage records posted {result.records:,}: {agree}."
        + (f" [bold red]Other answers: {others}.[/]" if others else ""),
        books_line(verified=result.verified, failed_checks=result.failed_checks),
    ]
