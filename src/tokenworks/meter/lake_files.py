"""The files of the usage lake: Parquet that DuckDB writes and reads, and the manifest that says which files count.

    lake/manifest.json
    lake/usage/day=2026-11-22/records-000000000001-000000000417.parquet

A day is that of a request's opening, in UTC; the numbers are the seals whose records are in the file. Programs that
know nothing of the manifest may read `usage/*/*.parquet`: whatever is unfinished or does not count has another ending.
All functions here block; nothing here knows the database.
"""

import re
from collections.abc import Collection, Iterable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tokenworks.base import atomic
from tokenworks.meter.tables import first_id

if TYPE_CHECKING:
    import duckdb

MANIFEST = "manifest.json"
WORK = ".work"
ORPHAN = ".orphan"
_MEMORY = "512MB"

_TOKENS = ("tokens_input", "tokens_cached_input", "tokens_cache_write", "tokens_output", "tokens_reasoning")
_COUNTS = ", ".join(f'"{name}":"BIGINT"' for name in _TOKENS)
_CHARGE = (
    f'"lease_id":"BIGINT","bucket_id":"VARCHAR","tariff":"VARCHAR","unit":"VARCHAR",{_COUNTS},'
    '"amount":"DECIMAL(38,0)","proven":"BOOLEAN","revenue":"DECIMAL(38,0)","currency":"VARCHAR"'
)
_ATTEMPT = (
    f'"endpoint_id":"VARCHAR","supplier_id":"VARCHAR","tariff":"VARCHAR","currency":"VARCHAR",{_COUNTS},'
    '"cost":"DECIMAL(38,0)","outcome":"VARCHAR","sent_after_ns":"BIGINT","first_token_after_ns":"BIGINT",'
    '"ended_after_ns":"BIGINT"'
)
# Each column of a record: its type as plain text, and for nested ones the shape of the JSON in that text.
COLUMNS: dict[str, tuple[str, str]] = {
    "day": ("DATE", ""),
    "id": ("BIGINT", ""),
    "journal_id": ("VARCHAR", ""),
    "position": ("BIGINT", ""),
    "request_id": ("VARCHAR", ""),
    "opened_at_ns": ("BIGINT", ""),
    "closed_at_ns": ("BIGINT", ""),
    "legal_entity_id": ("VARCHAR", ""),
    "billing_account_id": ("VARCHAR", ""),
    "key_id": ("VARCHAR", ""),
    "model": ("VARCHAR", ""),
    "streamed": ("BOOLEAN", ""),
    "first_token_after_ns": ("BIGINT", ""),
    "ending": ("VARCHAR", ""),
    "basis": ("VARCHAR", ""),
    **dict.fromkeys(_TOKENS, ("BIGINT", "")),
    "counted": ("VARCHAR", '["BIGINT"]'),
    "reported": ("VARCHAR", '["BIGINT"]'),
    "flags": ("VARCHAR", '["VARCHAR"]'),
    "charges": ("VARCHAR", f"[{{{_CHARGE}}}]"),
    "attempts": ("VARCHAR", f"[{{{_ATTEMPT}}}]"),
    "posting_id": ("BIGINT", ""),
}
_TIMES = "make_timestamp(opened_at_ns // 1000) AS opened_at, make_timestamp(closed_at_ns // 1000) AS closed_at"
_PROVEN = "list_transform(list_filter(charges, lambda c: c.proven), lambda c: c.amount)"


class LakeFault(Exception):
    """The lake cannot be read or written; the text is one sentence that an operator can act on."""


class Sums(msgspec.Struct, frozen=True):
    """What is compared between file and table. Amounts of all units are added up alike: a sum to check, not to show."""

    records: int
    tokens: int
    charged: int
    revenue: int
    cost: int


class LakeFile(msgspec.Struct, frozen=True):
    """One file: where it is below the lake, the day its requests were opened on, the seals whose records it has."""

    path: str
    day: str
    from_seq: int
    through_seq: int
    sums: Sums


class Answer(msgspec.Struct, frozen=True):
    """Columns and rows of a query."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


class _Manifest(msgspec.Struct, frozen=True):
    files: tuple[LakeFile, ...]


def name_of(day: str, from_seq: int, through_seq: int) -> str:
    """Where the records of a day, sealed in these links, lie below the lake."""
    return f"usage/day={day}/records-{from_seq:012d}-{through_seq:012d}.parquet"


def unfinished(folder: Path, path: str) -> Path:
    """Where a file is written before it counts; another ending, so that nobody reads it."""
    place = folder / path
    return place.with_name(f".{place.name}{atomic.UNFINISHED}")


def clear(folder: Path, named: Collection[str]) -> None:
    """Set aside files that nothing names, and throw away what was left unfinished."""
    for place in folder.glob("usage/*/*.parquet"):
        if str(place.relative_to(folder)) not in named:
            place.rename(place.with_name(f"{place.name}{ORPHAN}"))
    for place in folder.glob(f"usage/*/.*{atomic.UNFINISHED}"):
        place.unlink()


def write(folder: Path, rows: Path, from_seq: int, through_seq: int) -> list[LakeFile]:
    """Turn the CSV file `rows` into one unfinished Parquet file for each day; gives them as they will be named."""
    types = {name: kind for name, (kind, _) in COLUMNS.items()}
    shapes = [f"from_json({name}, '{shape}') AS {name}" if shape else name for name, (_, shape) in COLUMNS.items()]
    with _connected(folder) as database:
        database.execute(
            f"""CREATE VIEW fresh AS SELECT {", ".join(shapes)}, {_TIMES} FROM read_csv(
                    {_quoted(rows)}, header = false, delim = ',', quote = '"', escape = '"', nullstr = '\\N',
                    allow_quoted_nulls = false, auto_detect = false, columns = {types!r})"""  # noqa: S608 - ours
        )
        days = [str(row[0]) for row in database.execute("SELECT DISTINCT day FROM fresh ORDER BY day").fetchall()]
        return [_write_day(database, folder, day, from_seq, through_seq) for day in days]


def differs(folder: Path, path: Path, file: LakeFile) -> bool:
    """Whether what lies at `path` is not this file: other sums, another day, other seals, or no Parquet at all."""
    import duckdb  # noqa: PLC0415 - large; only those who use the lake wait for it

    try:
        with _connected(folder) as database:
            strays = database.execute(
                f"""SELECT count(*) FROM read_parquet({_quoted(path)}, hive_partitioning = false)
                    WHERE day <> ? OR id < ? OR id >= ?""",  # noqa: S608 - ours
                [file.day, first_id(file.from_seq), first_id(file.through_seq + 1)],
            ).fetchone()
            return strays != (0,) or _sums(database, path) != file.sums
    except duckdb.Error:
        return True


def read_manifest(folder: Path) -> tuple[LakeFile, ...]:
    """The files that count, as the folder itself says."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=_Manifest).files
    except FileNotFoundError as fault:
        raise LakeFault(f"There is no usage lake in {folder}.") from fault
    except (OSError, msgspec.DecodeError) as fault:
        raise LakeFault(f"The manifest of the usage lake in {folder} cannot be read: {fault}.") from fault


def write_manifest(folder: Path, files: Iterable[LakeFile]) -> None:
    """Say which files count."""
    with atomic.replacing(folder / MANIFEST) as out:
        out.write(msgspec.json.format(msgspec.json.encode(_Manifest(tuple(files)))) + b"\n")


def query(folder: Path, sql: str) -> Answer:
    """Answer one SELECT over the views `usage`, `charges` and `attempts`. It sees the lake's files and nothing else."""
    import duckdb  # noqa: PLC0415 - as above

    files = [folder / each.path for each in read_manifest(folder)]
    try:
        with _connected(folder) as database:
            _views(database, files)
            database.execute(f"SET allowed_paths = {_listed(files)}")
            database.execute("SET enable_external_access = false")
            database.execute("SET lock_configuration = true")
            statements = database.extract_statements(sql)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                raise LakeFault("Ask one SELECT: the lake is only read.")
            found = database.execute(statements[0])
            names = tuple(str(column[0]) for column in found.description or ())
            return Answer(names, tuple(found.fetchall()))
    except duckdb.Error as fault:
        raise LakeFault(f"{fault}") from fault


def _connected(folder: Path) -> "duckdb.DuckDBPyConnection":
    """A database in memory; what does not fit there goes into the lake's work folder."""
    import duckdb  # noqa: PLC0415 - as above

    database = duckdb.connect(config={"threads": 1, "memory_limit": _MEMORY})
    database.execute(f"SET temp_directory = {_quoted(folder / WORK)}")
    return database


def _write_day(
    database: "duckdb.DuckDBPyConnection", folder: Path, day: str, from_seq: int, through_seq: int
) -> LakeFile:
    path = name_of(day, from_seq, through_seq)
    beside = unfinished(folder, path)
    beside.parent.mkdir(parents=True, exist_ok=True)
    database.execute(
        f"COPY (SELECT * FROM fresh WHERE day = '{day}' ORDER BY id) TO {_quoted(beside)}"  # noqa: S608 - ours
        " (FORMAT parquet, COMPRESSION zstd)"
    )
    atomic.sync(beside)
    return LakeFile(path, day, from_seq, through_seq, _sums(database, beside))


def _sums(database: "duckdb.DuckDBPyConnection", path: Path) -> Sums:
    row = database.execute(
        f"""SELECT count(*), sum({" + ".join(_TOKENS)}), sum(list_sum({_PROVEN})),
                sum(list_sum(list_transform(charges, lambda c: c.revenue))),
                sum(list_sum(list_transform(attempts, lambda a: a.cost)))
            FROM read_parquet({_quoted(path)}, hive_partitioning = false)"""  # noqa: S608 - ours
    ).fetchone()
    return Sums(*(int(Decimal(number or 0)) for number in row or ()))


def _views(database: "duckdb.DuckDBPyConnection", files: list[Path]) -> None:
    if files:
        source = f"read_parquet({_listed(files)}, hive_partitioning = false)"
    else:
        nothing = [f"from_json('[]', '{shape}') AS {name}" for name, (_, shape) in COLUMNS.items() if shape]
        nothing += [f"CAST(NULL AS {kind}) AS {name}" for name, (kind, shape) in COLUMNS.items() if not shape]
        source = f"(SELECT *, {_TIMES} FROM (SELECT {', '.join(nothing)}) WHERE false)"  # noqa: S608 - ours
    database.execute(f"CREATE VIEW usage AS SELECT * FROM {source}")  # noqa: S608 - ours
    record = "request_id, day, closed_at, legal_entity_id, billing_account_id, model"
    for name in ("charges", "attempts"):
        database.execute(f"CREATE VIEW {name} AS SELECT {record}, unnest({name}, recursive := true) FROM usage")  # noqa: S608


def _listed(paths: Iterable[Path]) -> str:
    return f"[{', '.join(_quoted(path) for path in paths)}]"


def _quoted(path: Path) -> str:
    return "'" + re.sub("'", "''", str(path)) + "'"
