"""The demonstration told in a terminal: short chapters, tables with the exact figures, the answer as it streams.

It decides nothing and asks nobody; it is handed records and shows them.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from tokenworks.app.caller import Call
from tokenworks.app.spawned import Spawned
from tokenworks.cli.render import aligned, amount, text_of
from tokenworks.cli.verify import checks_table
from tokenworks.ledger.verify import Check

Record = dict[str, Any]
_STARTING = "Starting database, bus, engine, gateways, office"
Row = tuple[str, str]

_CLASSES = {
    "input": "input",
    "cached_input": "cached input",
    "cache_write": "cache write",
    "output": "output",
    "reasoning": "reasoning",
}


class Story:
    """Implements `app.demo.Teller` on a terminal; on a quiet console it says nothing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._chapter = 0

    @contextmanager
    def starting(self) -> Generator[None]:
        """A progress bar until the system answers."""
        bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
        )
        bar.add_task(_STARTING, total=None)
        if not self._console.is_terminal:
            self._console.print(f"{_STARTING} …")
        with bar:
            yield

    def started(self, system: Spawned) -> None:
        """What runs now."""
        self._begin("A token utility on one machine", f"ready after {_seconds(system.startup_ms)}")
        rows = [("customers' API", f"{system.addresses['gateway']}/v1"), ("office", system.addresses["office"])]
        rows += [(name, where) for name, where in system.addresses.items() if name not in ("gateway", "office")]
        self._show(_facts([*rows, ("data", str(system.data))]))

    def offered(self, seller: Record, offer: Record) -> None:
        """Who sells what."""
        self._begin("An offer", f"sold by {seller['name']}")
        tax = f"{seller['tax_basis_points'] // 100} %, included"
        self._show(
            _facts(
                [
                    ("offer", f"{offer['name']} ({offer['id']})"),
                    ("price", amount(offer["price"])),
                    ("tax", tax),
                    ("holds", text_of(offer["grant"])),
                    ("valid", offer["validity"]),
                ]
            )
        )

    def ordered(self, customer: Record, order: Record) -> None:
        """Who bought it, and how it was paid."""
        self._begin("An order, paid on the phone bill", f"{customer['name']}, {customer['phone']}")
        sums = [("net", order["net"]), ("tax", order["tax"]), ("paid", order["price"])]
        payment = ("carrier's reference", text_of(order["payment"].get("reference")))
        self._show(_facts([("order", order["id"]), ("state", order["state"]), payment]), _sums(sums))

    def wallet(self, bucket: Record) -> None:
        """What the customer has."""
        self._begin("The wallet", f"bucket {bucket['bucket_id']}, valid to {text_of(bucket['valid_to'])} UTC")
        self._show(_wallet(bucket))

    @contextmanager
    def answering(self, prompt: str) -> Generator[Callable[[str], None]]:
        """The prompt, and a panel in which the answer grows."""
        self._begin("A call of the API", "POST /v1/chat/completions")
        self._show(Text(f"› {prompt}", style="bold"))
        answer = Text()
        panel = Panel(answer, border_style="cyan", title="answer", title_align="left")
        if self._console.quiet:
            yield lambda _: None
            return
        with Live(panel, console=self._console, refresh_per_second=20, vertical_overflow="visible"):
            yield lambda piece: _grow(answer, piece)

    def answered(self, call: Call) -> None:
        """What the customer's program saw."""
        how = f"first token after {call.first_token_ms} ms, " if call.streamed else ""
        told = f"{call.tokens_prompt} tokens read, {call.tokens_completion} written"
        self._show(Text(f"{how}{'streamed' if call.streamed else 'in one piece'} in {call.duration_ms} ms; {told}"))

    def metered(self, records: tuple[Record, ...], bucket: Record) -> None:
        """The usage records, and what they left of the bucket."""
        self._begin("What the ledger has", f"one record for each call, charged to bucket {bucket['bucket_id']}")
        self._show(_usage(records), _wallet(bucket))

    def billed(self, statement: Record, bill: Record) -> None:
        """The open period, and the bill that closed it."""
        self._begin("Statement and bill", f"bill {bill['number']}")
        used = f"{statement['records']} requests, {statement['tokens']['total']:,} tokens, paid with the package"
        self._show(Text(f"{statement['period']['from'][:10]} to {statement['period']['to'][:10]}: {used}"))
        lines = [(line["description"], line["total"]) for line in bill["lines"]]
        sums = [("net", bill["net"]), ("tax", bill["tax"]), ("total", bill["total"])]
        self._show(_sums([*lines, *sums]))

    def settled(self, supplier: Record, margin: Record) -> None:
        """What is owed to the supplier, and what remains."""
        self._begin("The other side of the business", f"tokens bought from {supplier['name']}")
        rows = [
            ("revenue recognised", margin["revenue"]),
            ("cost of these tokens", margin["cost"]),
            ("margin", margin["margin"]),
            (f"owed to {supplier['name']}", supplier["payable"]),
        ]
        self._show(_sums(rows))

    def checked(self, checks: tuple[Check, ...]) -> None:
        """Whether everything adds up."""
        self._begin("Does it add up?", f"{len(checks)} checks")
        self._show(checks_table([(check.name, check.ok, check.detail) for check in checks]))
        if all(check.ok for check in checks):
            self._show(Text("Everything adds up, to the last token.", style="bold green"))
        else:
            self._show(Text("This does not add up.", style="bold red"))

    def ending(self, kept: str) -> None:
        """What happens with the system."""
        how = f"The data stays in {kept}." if kept else "Its data is thrown away."
        self._show(Text(f"Stopping the system. {how}", style="dim"))

    def _begin(self, title: str, about: str) -> None:
        self._chapter += 1
        heading = Text.assemble((f"{self._chapter}. {title}", "bold"), (f"   {about}", "dim"))
        self._console.print()
        self._console.print(Rule(heading, align="left", style="dim"))

    def _show(self, *parts: RenderableType) -> None:
        self._console.print(Padding(Group(*parts), (0, 0, 0, 2)))


def _grow(answer: Text, piece: str) -> None:
    answer.append(piece)


def _facts(rows: list[Row]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(value))
    return table


def _sums(rows: list[tuple[str, Record]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column()
    table.add_column(justify="right", no_wrap=True)
    for (name, _), text in zip(rows, aligned(value for _, value in rows), strict=True):
        table.add_row(Text(name), Text(text))
    return table


def _wallet(bucket: Record) -> Table:
    parts = ("granted", "available", "leased", "spent", "expired")
    names = {"leased": "with gateways"}
    return _sums([(names.get(part, part), {"amount": bucket[part], "unit": bucket["unit"]}) for part in parts])


def _usage(records: tuple[Record, ...]) -> Table:
    used = [name for name in _CLASSES if any(record["tokens"][name] for record in records)]
    table = Table(pad_edge=False, show_edge=False, box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("request", overflow="fold")
    for name in used:
        table.add_column(_CLASSES[name], justify="right")
    for heading in ("counts", "charged", "cost"):
        table.add_column(heading, justify="left" if heading == "counts" else "right", no_wrap=True)
    costs = iter(aligned(attempt["cost"] for record in records for attempt in record["attempts"]))
    for record in records:
        cost = ", ".join(next(costs) for _ in record["attempts"])
        charges = ", ".join(amount(charge["amount"]) for charge in record["charges"])
        counts = [f"{record['tokens'][name]:,}" for name in used]
        table.add_row(record["request_id"], *counts, record["basis"], charges, cost)
    return table


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000 // 100} s"
