"""The root of the command line: its groups, its help and its exit."""

from typing import Any

import typer
from typer.core import TyperGroup

from tokenworks.cli import (
    backups,
    bench,
    books,
    chaos,
    corrections,
    credit,
    export,
    journals,
    lake,
    limits,
    parties,
    restart,
    sales,
    secrets,
    sim,
    supplies,
    system,
    workers,
)
from tokenworks.cli.command import shared

_COMMANDS = {
    "up": system.up,
    "gateway": system.gateway,
    "demo": system.demo,
    "verify": system.verify,
    "restore": backups.restore,
    "chaos": chaos.chaos,
    "sim": sim.sim,
    "export": shared(export.export),
}
_GROUPS = {
    "Customers and sales": {
        "legal-entities": parties.legal_entities,
        "customers": parties.customers,
        "keys": parties.keys,
        "limits": limits.limits,
        "tariffs": sales.tariffs,
        "offers": sales.offers,
        "orders": sales.orders,
        "credits": credit.credits_,
        "payments": credit.payments,
    },
    "Books": {
        "balances": books.balances,
        "usage": books.usage,
        "bills": books.bills,
        "accounts": books.accounts,
        "epochs": books.epochs,
        "corrections": corrections.corrections,
        "lake": lake.lake,
    },
    "Supply": {"suppliers": supplies.suppliers, "endpoints": supplies.endpoints, "models": supplies.models},
    "Keeping": {
        "backup": backups.backup,
        "journal": journals.journals,
        "restart": restart.restart,
        "workers": workers.workers,
        "secrets": secrets.secrets,
    },
    "Measurements": {"bench": bench.bench},
}


class Sections(TyperGroup):
    """Help that lists the commands by section, in the order of a business."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one section after the other."""
        del ctx
        for title, names in ({"System": _COMMANDS} | _GROUPS).items():
            rows = [(name, self.commands[name].get_short_help_str(100)) for name in names]
            with formatter.section(title):
                formatter.write_dl(rows)


app = typer.Typer(
    name="tokenworks",
    cls=Sections,
    help="Tokenworks makes, dispatches, meters and sells LLM tokens.",
    epilog="A group without a command lists. Exit codes: 0 done, 1 failed or does not add up, 2 wrong use or setting, "
    "3 the office cannot be reached.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # Typer's framed help costs a quarter of a second of imports; plain help is there at once and greps well.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["--help", "-h"]},
)
for _name, _function in _COMMANDS.items():
    app.command(_name)(_function)
for _groups in _GROUPS.values():
    for _name, _group in _groups.items():
        app.add_typer(_group, name=_name)


def main() -> None:
    """Run the command line and exit."""
    app()
