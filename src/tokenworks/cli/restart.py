"""Commands that renew parts of the running system on this machine. They signal its parent, not the office."""
# ruff: noqa: PLC0415

import json as json_text

import typer

from tokenworks.cli.command import JsonOption
from tokenworks.cli.faults import CommandFault, told

restart = typer.Typer(help="Renew parts of the running system without a failed request.", no_args_is_help=True)


@restart.callback()
def _parts() -> None:
    """Keeps the word for the part in the command while there is one part only."""


@restart.command("workers")
def workers(json: JsonOption = False) -> None:
    """Replace the gateway workers one by one: a new one serves before the old one finishes its streams."""
    import asyncio

    from tokenworks.app import renewal
    from tokenworks.base import config
    from tokenworks.base.processes import StartFault

    with told():
        try:
            renewed = asyncio.run(renewal.renew(config.load()))
        except StartFault as fault:
            raise CommandFault(f"{fault}.") from fault
        if json:
            rows = [{"worker": name, "before": old, "now": new} for name, (old, new) in renewed.workers.items()]
            typer.echo(json_text.dumps({"items": rows, "took_ms": renewed.took_ms}))
        else:
            for name, (old, new) in renewed.workers.items():
                typer.echo(f"{name}: process {old} → {new}")
            typer.echo(f"All serve, after {renewed.took_ms} ms. The former ones end when their streams are over.")
