"""`docs/cli.md` lists every command with its help and its own options; the rows here are what it must hold."""

from pathlib import Path
from typing import Any

import typer.main
from typer.core import TyperGroup

from tokenworks.cli import root

PAGE = Path(__file__).parents[2] / "docs/cli.md"
SHARED = {"json", "office", "token", "help"}


def rows() -> list[str]:
    tree = typer.main.get_command(root.app)
    assert isinstance(tree, TyperGroup)
    found: list[str] = []
    for name, command in tree.commands.items():
        if isinstance(command, TyperGroup):
            found += [_row(f"{name} {verb}", each) for verb, each in command.commands.items()]
        else:
            found.append(_row(name, command))
    return found


def _row(words: str, command: Any) -> str:
    arguments = [(each.metavar or each.name).upper() for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name not in SHARED]
    names = ", ".join(f"`{each.opts[0]}`" for each in sorted(options, key=lambda each: not each.required))
    usage = " ".join([f"tokenworks {words}", *arguments])
    return f"| `{usage}` | {command.help} | {names} |"


def test_the_page_lists_every_command() -> None:
    page = PAGE.read_text("utf-8").splitlines()
    assert [line for line in page if line.startswith("| `tokenworks ")] == rows(), "put these there:\n" + "\n".join(
        rows()
    )


def test_every_command_and_group_has_help() -> None:
    tree = typer.main.get_command(root.app)
    assert isinstance(tree, TyperGroup)
    assert [name for name, command in tree.commands.items() if not command.help] == []
