"""Records as tables for people: amounts and counts to the right, times in UTC, ids never cut.

It works on any record the office sends, by the shape of its values; which columns a list shows is said by the caller.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, cast

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokenworks.cli.command import Columns

NONE = "–"
_PIPE_WIDTH = 240
_HIDDEN_ZERO = (0, "", None, False)


def table(title: str, entries: list[dict[str, Any]], columns: Columns) -> None:
    """Print a list."""
    out = console()
    if not entries:
        out.print(f"No {title.replace('-', ' ')}.", style="dim")
        return
    out.print(_grid(entries, columns))


def record(entry: dict[str, Any]) -> None:
    """Print one record: its plain fields, then its lists as tables of their own."""
    out = console()
    plain = Table.grid(padding=(0, 2))
    plain.add_column(style="dim", no_wrap=True)
    plain.add_column(overflow="fold")
    lists = {name: value for name, value in entry.items() if _is_list_of_records(value)}
    for name, value in entry.items():
        if name not in lists:
            plain.add_row(name.replace("_", " "), text_of(value))
    out.print(plain)
    for name, entries in lists.items():
        out.print()
        out.print(Text(name.replace("_", " "), style="bold"))
        columns: Columns = {
            key.replace("_", " "): key for key in entries[0] if not _is_list_of_records(entries[0][key])
        }
        out.print(_grid(entries, columns))


def console() -> Console:
    """Standard output; in a pipe wide enough that nothing is folded."""
    plain = Console(highlight=False)
    return plain if plain.is_terminal else Console(highlight=False, width=_PIPE_WIDTH)


def text_of(value: Any) -> str:
    """The text of any value."""
    match value:
        case None | "" | []:
            text = NONE
        case bool():
            text = "yes" if value else "no"
        case int():
            text = f"{value:,}"
        case str():
            text = _time(value) if _is_time(value) else value
        case list():
            text = ", ".join(text_of(part) for part in cast("list[Any]", value))
        case dict():
            text = _record_text(cast("dict[str, Any]", value))
        case _:
            text = str(value)
    return text


def amount(value: dict[str, Any], decimals: int = 2) -> str:
    """`{"amount": "9.9", "unit": "CNY"}` → `9.90 CNY`; `{"amount": 10000000, "unit": "token"}` → `10,000,000 token`."""
    quantity = value["amount"]
    if isinstance(quantity, int):
        return f"{quantity:,} {value['unit']}"
    return f"{Decimal(quantity):,.{max(decimals, _decimals(value))}f} {value['unit']}"


def aligned(values: Iterable[dict[str, Any]]) -> list[str]:
    """Amounts for one column to the right: each currency with as many decimals as its longest needs."""
    values = list(values)
    return [amount(value, max(_decimals(each) for each in values if each["unit"] == value["unit"])) for value in values]


def _decimals(value: dict[str, Any]) -> int:
    exponent = Decimal(value["amount"]).as_tuple().exponent
    return max(2, -exponent) if isinstance(exponent, int) else 2


def _record_text(value: dict[str, Any]) -> str:
    if _is_amount(value):
        return amount(value)
    shown = {name: part for name, part in value.items() if part not in _HIDDEN_ZERO}
    return " · ".join(f"{name.replace('_', ' ')} {text_of(part)}" for name, part in shown.items()) or NONE


def _grid(entries: list[dict[str, Any]], columns: Columns) -> Table:
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    texts: list[list[str]] = []
    for heading, where in columns.items():
        values = [_at(entry, where) for entry in entries]
        right = all(_is_quantity(value) for value in values if value is not None)
        grid.add_column(heading, justify="right" if right else "left", no_wrap=right, overflow="fold")
        texts.append(aligned(values) if all(map(_is_amount, values)) else [text_of(value) for value in values])
    for row in zip(*texts, strict=True):
        grid.add_row(*map(Text, row))
    return grid


def _at(entry: dict[str, Any], where: str | Callable[[dict[str, Any]], Any]) -> Any:
    if callable(where):
        return where(entry)
    value: Any = entry
    for name in where.split("."):
        value = cast("dict[str, Any]", value).get(name) if isinstance(value, dict) else None
    return value


def _is_quantity(value: Any) -> bool:
    return _is_amount(value) or (isinstance(value, int) and not isinstance(value, bool))


def _is_amount(value: Any) -> bool:
    return isinstance(value, dict) and cast("dict[str, Any]", value).keys() == {"amount", "unit"}


def _is_list_of_records(value: Any) -> bool:
    return isinstance(value, list) and bool(parts := cast("list[Any]", value)) and isinstance(parts[0], dict)


def _is_time(value: str) -> bool:
    return len(value) == 24 and value[10] == "T" and value.endswith("Z") and value[4] == value[7] == "-"


def _time(value: str) -> str:
    return value[:19].replace("T", " ")
