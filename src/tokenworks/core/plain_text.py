"""The books as plain-text accounting, in the grammars of beancount and of hledger.

Pure: names and text only. Accounts keep their codes, written so that they can be read back: a code's parts become the
parts of the name below its legal entity, and what the grammars do not take in a name is escaped. Debits are positive.
What is counted in tokens, coins or points is a commodity like a currency. The unit books of buckets and leases are
memoranda below Equity, where they always add up to nothing, and disturb no balance sheet.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from typing import Literal, Protocol

import msgspec

from tokenworks.core import amounts

Format = Literal["beancount", "hledger"]

DAY_NS = 86_400_000_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_ROOTS = {
    "cash": "Assets",
    "receivable": "Assets",
    "contract_liability": "Liabilities",
    "payable": "Liabilities",
    "refund_due": "Liabilities",
    "tax": "Liabilities",
    "revenue": "Income",
    "cost": "Expenses",
    "loss": "Expenses",
}
_MEMORANDA = "Equity"
_PIECE = re.compile(r"[-_]+|.", re.DOTALL)
_CODED = re.compile(r"Z([0-9a-f]{2})|(-{1,2})|([^Z-])")


class Leg(msgspec.Struct, frozen=True):
    """What one account was debited (above zero) or credited (below)."""

    account: str
    unit: str
    amount: int


class Transaction(msgspec.Struct, frozen=True):
    """A posting, or the opening balances; times in nanoseconds since 1970, UTC."""

    kind: str
    event_id: str
    at_ns: int
    used_at_ns: int
    legs: tuple[Leg, ...]


class Writer(Protocol):
    """One format; each method gives whole lines. `day` is written as a date of UTC."""

    def head(self, title: str, units: Iterable[str], accounts: Iterable[str], day: str) -> str: ...
    def transaction(self, one: Transaction) -> str: ...
    def balances(self, day: str, legs: Iterable[Leg]) -> str: ...
    def end(self, transactions: int) -> str: ...


def account_name(legal_entity_id: str, code: str) -> str:
    """`account_name("le", "payable/my-pool")` → `Liabilities:Le:Payable:My--pool`."""
    root = _ROOTS.get(code.partition("/")[0], _MEMORANDA)
    return ":".join([root, _encoded(legal_entity_id), *(_encoded(part) for part in code.split("/"))])


def account_of(name: str) -> tuple[str, str]:
    """The legal entity and the code of an account's name."""
    _, entity, *parts = name.split(":")
    return _decoded(entity), "/".join(_decoded(part) for part in parts)


def commodity(unit: str) -> str:
    """`token` → `TOKEN`; currencies are what they are."""
    return unit.upper()


def day_of(at_ns: int) -> str:
    """The date of a time, in UTC."""
    return date.fromordinal(_EPOCH_DAY + at_ns // DAY_NS).isoformat()


def time_of(at_ns: int) -> str:
    """A time to the nanosecond, RFC 3339."""
    seconds, rest_ns = divmod(at_ns % DAY_NS, amounts.NANO)
    minutes, second = divmod(seconds, 60)
    return f"{day_of(at_ns)}T{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}.{rest_ns:09d}Z"


def writer(form: Format) -> Writer:
    """The writer of a format."""
    return _WRITERS[form]


class _Beancount:
    """Beancount's language, version 3; version 2 reads it too."""

    def head(self, title: str, units: Iterable[str], accounts: Iterable[str], day: str) -> str:
        lines = [
            f"option {_quoted('title')} {_quoted(title)}",
            *(f"{day} commodity {commodity(unit)}" for unit in units),
            *(f"{day} open {account}" for account in accounts),
        ]
        return _text(lines)

    def transaction(self, one: Transaction) -> str:
        lines = [
            "",
            f"{day_of(one.at_ns)} * {_quoted(one.kind)} {_quoted(one.event_id)}",
            f'  posted: "{time_of(one.at_ns)}"',
            f'  used: "{time_of(one.used_at_ns)}"',
            *(f"  {leg.account}  {_amount(leg)}" for leg in one.legs),
        ]
        return _text(lines)

    def balances(self, day: str, legs: Iterable[Leg]) -> str:
        lines = [
            f"{day} balance {leg.account}  {amounts.exact(leg.amount, leg.unit)} ~ 0 {commodity(leg.unit)}"
            for leg in legs
        ]
        return _text(["", *lines])

    def end(self, transactions: int) -> str:
        return f"\n; {transactions} transactions, complete\n"


class _Hledger:
    """Hledger's journal format."""

    def head(self, title: str, units: Iterable[str], accounts: Iterable[str], day: str) -> str:
        del day
        lines = [
            f"; {_plain(title)}",
            "decimal-mark .",
            *(f"commodity {_sample(unit)} {commodity(unit)}" for unit in units),
            *(f"account {account}" for account in accounts),
        ]
        return _text(lines)

    def transaction(self, one: Transaction) -> str:
        lines = [
            "",
            f"{day_of(one.at_ns)} * {_plain(one.kind)} | {_plain(one.event_id)}",
            f"    ; posted:{time_of(one.at_ns)}",
            f"    ; used:{time_of(one.used_at_ns)}",
            *(f"    {leg.account}  {_amount(leg)}" for leg in one.legs),
        ]
        return _text(lines)

    def balances(self, day: str, legs: Iterable[Leg]) -> str:
        lines = [f"    {leg.account}  0 {commodity(leg.unit)} = {_amount(leg)}" for leg in legs]
        return _text(["", f"{day} * balances", *lines]) if lines else ""

    def end(self, transactions: int) -> str:
        return f"\n; {transactions} transactions, complete\n"


_WRITERS: Mapping[Format, Writer] = {"beancount": _Beancount(), "hledger": _Hledger()}


def _sample(unit: str) -> str:
    """A number with as many decimals as the unit has; hledger wants the decimal mark in any case."""
    return "1000." if amounts.scale(unit) == 1 else "1000.000000000"


def _amount(leg: Leg) -> str:
    return f"{amounts.exact(leg.amount, leg.unit)} {commodity(leg.unit)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _plain(text: str) -> str:
    """What ends a description, a comment or a line has no place in one."""
    return re.sub(r"[;|\s]+", " ", text).strip()


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _encoded(part: str) -> str:
    """A part of a name: a capital or digit, then letters, digits and hyphens.

    A letter at the beginning becomes its capital, `_` is `-` and `-` is `--`; anything else is `Z` and its bytes in
    hex, and so are a z at the beginning and hyphens in a row.
    """
    if not part:
        return "Z"
    first, rest = part[0], part[1:]
    begin = first.upper() if "a" <= first <= "y" else first if "0" <= first <= "9" else _escaped(first)
    return begin + "".join(_encoded_piece(found[0]) for found in _PIECE.finditer(rest))


def _encoded_piece(piece: str) -> str:
    if piece == "_":
        return "-"
    if piece == "-":
        return "--"
    return piece if piece.isascii() and re.fullmatch(r"[a-z0-9]", piece) else _escaped(piece)


def _escaped(text: str) -> str:
    return "".join(f"Z{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


def _decoded(part: str) -> str:
    if part == "Z":
        return ""
    begin = "" if part.startswith("Z") else part[0].lower()
    found = bytearray(begin.encode())
    for code, hyphens, letter in _CODED.findall(part[len(begin) :]):
        if code:
            found.append(int(code, 16))
        else:
            found += ("-" if hyphens == "--" else "_").encode() if hyphens else letter.encode()
    return found.decode("utf-8", "surrogatepass")
