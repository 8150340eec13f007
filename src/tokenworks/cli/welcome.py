"""What `tokenworks up` and `tokenworks gateway` say when all answers: where things are, and how to call the API."""

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from tokenworks.app.claim import Running
from tokenworks.plant.engine import MODEL

_FIRST_CALL = {"model": MODEL, "messages": [{"role": "user", "content": "Say hello in five words."}]}


def in_words(running: Running) -> None:
    """Addresses, and a line to paste. Nothing is framed or folded, so that every line can be copied whole."""
    out = Console(highlight=False)
    out.print(Rule(Text("Tokenworks is running", style="bold"), align="left", style="green"))
    for name, value in _places(running).items():
        out.print(Text.assemble((f"{name:<9}", "dim"), value), soft_wrap=True)
    if key := _demo_key(running):
        out.print(Text.assemble(("A first call:\n", "dim"), curl(running.addresses["gateway"], key)), soft_wrap=True)
    out.print("Ctrl-C stops it. Elsewhere: tokenworks usage, tokenworks verify, tokenworks --help", style="dim")


def as_json(running: Running) -> None:
    """The same as one JSON object."""
    sys.stdout.write(json.dumps(_places(running)) + "\n")
    sys.stdout.flush()


def gateway_in_words(running: Running) -> None:
    """Where the workers of this machine answer, what they are called, and whose they are."""
    out = Console(highlight=False)
    out.print(Rule(Text("A Tokenworks gateway is running", style="bold"), align="left", style="green"))
    for name, value in _gateway_places(running).items():
        out.print(Text.assemble((f"{name:<9}", "dim"), value), soft_wrap=True)
    out.print("Ctrl-C stops it. Customers, balances and books are on the first machine.", style="dim")


def gateway_as_json(running: Running) -> None:
    """The same as one JSON object."""
    sys.stdout.write(json.dumps(_gateway_places(running)) + "\n")
    sys.stdout.flush()


def curl(gateway: str, key: str) -> str:
    """One line that calls the API."""
    body = json.dumps(_FIRST_CALL, separators=(",", ":"))
    return (
        f"curl {gateway}/v1/chat/completions -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d '{body}'"
    )


def _places(running: Running) -> dict[str, str]:
    api, data, key = f"{running.addresses['gateway']}/v1", str(running.settings["data_dir"]), _demo_key(running)
    if not key:
        return {"api": api, "data": data}  # the console shows the demonstration: without it there is none
    console = f"{running.addresses['office']}/?token={_secret(running, 'admin-token')}"
    return {"api": api, "console": console, "data": data, "key": key}


def _gateway_places(running: Running) -> dict[str, str]:
    return {
        "api": f"{running.addresses['gateway']}/v1",
        "name": str(running.settings["gateway_name"]),
        "nats": running.addresses["nats"],
        "data": str(running.settings["data_dir"]),
    }


def _demo_key(running: Running) -> str:
    return _secret(running, "demo-key")


def _secret(running: Running, name: str) -> str:
    file = Path(str(running.settings["data_dir"])) / "secrets" / name
    return file.read_text(encoding="utf-8").strip() if file.is_file() else ""
