"""The usage lake: every record once, whatever breaks off in between, and only what counts is read."""

from pathlib import Path

import msgspec
import pytest

from ledger.books import ENTITY, SECOND, Journal, bucket, charge, lease, sell, verified
from ledger.books import SEALED as SEALED_TABLES
from ledger.edits import edits_missed
from tokenworks.base import atomic
from tokenworks.base.database import Pool
from tokenworks.core.journal import Attempt, Closing, Opening, Reserved
from tokenworks.core.leasing import Lease
from tokenworks.core.usage import Tokens
from tokenworks.ledger.seal import Connection
from tokenworks.ledger.verify import Check
from tokenworks.meter import lake, lake_files, lake_verify
from tokenworks.meter.lake_files import LakeFault
from tokenworks.meter.partitions import DAY_NS
from tokenworks.meter.tables import LAKE

SUMS = "SELECT day::text, count(*), sum(tokens_input), count(DISTINCT id) FROM usage GROUP BY day ORDER BY day"


class Business:
    """A bucket, a lease of it, and a journal whose requests are opened on a given day."""

    def __init__(self, pool: Pool, folder: Path, held: Lease) -> None:
        self.pool, self.folder, self.held, self.book = pool, folder, held, Journal()

    async def use(self, day: int, amount: int = 10, model: str = "m") -> None:
        held, number = self.held, self.book.requests
        self.book.requests += 1
        part = Reserved(held.lease_id, held.bucket.id, held.bucket.unit, amount)
        opened = day * DAY_NS + number
        opening = self.book.add(Opening(f"req-{number}", opened, ENTITY, "acc", "key", model, False, 90, 10, (part,)))
        tokens = Tokens(amount)
        tried = Attempt("ep", 'su"p', "buy@1", "CNY", tokens, 3, "finished", 1, 2, 3)
        closing = Closing(
            opening, opened + SECOND, "finished", "counted", tokens, tokens, None, ("odd",), (charge(held, amount),),
            (tried,), 2,
        )  # fmt: skip
        self.book.add(closing)
        assert (await self.book.ship(self.pool)).fault == ""

    async def export(self, now_ns: int = 5) -> list[str]:
        return [file.path for file in await lake.export(self.pool, self.folder, now_ns)]

    def ask(self, sql: str = SUMS) -> list[tuple[object, ...]]:
        return list(lake_files.query(self.folder, sql).rows)

    async def faults(self) -> list[str]:
        async with self.pool.connection() as conn:
            await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            found = [*await checks(conn), *await lake_verify.file_checks(conn, self.folder)]
        return [check.name for check in found if not check.ok]


async def checks(conn: Connection) -> list[Check]:
    return [*await verified(conn, SEALED_TABLES + LAKE), *await lake_verify.checks(conn)]


@pytest.fixture
async def business(database: Pool, tmp_path: Path) -> Business:
    await sell(database, bucket("b"))
    return Business(database, tmp_path / "a lake's", await lease(database, 1, 1_000))


async def test_every_record_is_in_one_file_and_late_ones_in_a_further_one(business: Business) -> None:
    assert await business.export() == []
    await business.use(1)
    await business.use(2, 20)
    first = await business.export()
    assert await business.export() == []
    await business.use(1, 5)
    assert business.ask() == [("1970-01-02", 1, 10, 1), ("1970-01-03", 1, 20, 1)]
    late = await business.export()
    assert [path.partition("/records")[0] for path in (*first, *late)] == [
        "usage/day=1970-01-02",
        "usage/day=1970-01-03",
        "usage/day=1970-01-02",
    ]
    assert business.ask() == [("1970-01-02", 2, 15, 2), ("1970-01-03", 1, 20, 1)]
    assert await business.faults() == []


async def test_what_a_record_says_is_read_back_exactly(business: Business) -> None:
    await business.use(3, 7, model='a "model", of\nlines\\N')
    await business.export()
    [row] = business.ask(
        "SELECT model, opened_at_ns, closed_at::text, reported, flags, charges[1].amount::text, attempts FROM usage"
    )
    assert row[:6] == (
        'a "model", of\nlines\\N', 3 * DAY_NS, "1970-01-04 00:00:01", None, ["odd"], "7",
    )  # fmt: skip
    [[amount, proven, unit]] = business.ask("SELECT amount::text, proven, unit FROM charges")
    [[cost, supplier, tokens]] = business.ask("SELECT cost::text, supplier_id, tokens_input FROM attempts")
    assert (amount, proven, unit, cost, supplier, tokens) == ("7", True, "token", "3", 'su"p', 7)


async def test_an_export_in_parts_covers_all(business: Business) -> None:
    for day in (1, 1, 2, 1, 3):
        await business.use(day)
    made = await lake.export(business.pool, business.folder, 5, records_at_once=2)
    assert sum(file.sums.records for file in made) == 5
    assert len({(file.from_seq, file.through_seq) for file in made}) == 3
    assert business.ask("SELECT count(*), count(DISTINCT id) FROM usage") == [(5, 5)]
    assert await business.faults() == []


async def test_a_file_that_was_named_and_not_renamed_counts(business: Business) -> None:
    """The machine stopped between the commit and the rename; or the file is gone or damaged altogether."""
    for harm in ("not renamed", "gone", "damaged"):
        await business.use(1)
        [path] = await business.export()
        place = business.folder / path
        beside = lake_files.unfinished(business.folder, path)
        place.rename(beside)
        if harm == "gone":
            beside.unlink()
        if harm == "damaged":
            beside.write_bytes(b"PAR1")
        assert await business.faults() == (["files of the lake are as they were written"] if harm == "gone" else [])
        assert await business.export() == []
        assert (place.exists(), beside.exists()) == (True, False)
        assert await business.faults() == []
    assert business.ask("SELECT count(*), count(DISTINCT id) FROM usage") == [(3, 3)]


async def test_what_nothing_names_is_set_aside(business: Business) -> None:
    """A database restored to an earlier time knows nothing of later files."""
    await business.use(1)
    [path] = await business.export()
    stray = (business.folder / path).with_name("records-000000000077-000000000078.parquet")
    stray.write_bytes((business.folder / path).read_bytes())
    left = stray.with_name(f".x{atomic.UNFINISHED}")
    left.write_bytes(b"")
    await business.export()
    assert (stray.exists(), left.exists()) == (False, False)
    assert stray.with_name(f"{stray.name}.orphan").exists()
    assert business.ask("SELECT count(*) FROM usage") == [(1,)]


@pytest.mark.parametrize(
    ("place", "device", "why"),
    [
        (".work/records.csv", "/dev/full", "No space left on device"),
        ("usage", "/dev/null", "Not a directory"),
        ("usage/day=1970-01-02", "/proc", "IO Error"),
    ],
    ids=["full", "no folder", "folder of somebody else"],
)
async def test_a_disk_that_takes_nothing_loses_nothing(business: Business, place: str, device: str, why: str) -> None:
    await business.use(1)
    link = business.folder / place
    link.parent.mkdir(parents=True)
    link.symlink_to(device)
    with pytest.raises(LakeFault, match=rf"cannot be written: .*{why}.*Nothing is lost"):
        await business.export()
    link.unlink(missing_ok=True)
    assert len(await business.export()) == 1
    assert business.ask("SELECT count(*) FROM usage") == [(1,)]
    assert await business.faults() == []


async def test_an_interval_that_is_over_is_exported(business: Business) -> None:
    hour = 3_600_000
    assert await lake.export_due(business.pool, business.folder, hour, 0) == []
    await business.use(1)  # sealed in the first hour
    for interval, at_s, files in ((hour, 3_599, 0), (0, 9_999, 0), (hour, 3_600, 1), (hour, 9_999, 0)):
        assert len(await lake.export_due(business.pool, business.folder, interval, at_s * SECOND)) == files


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("DELETE FROM usage", "Ask one SELECT"),
        ("COPY usage TO '/tmp/x.parquet'", "Ask one SELECT"),
        ("SELECT 1; SELECT 2", "Ask one SELECT"),
        ("SELECT * FROM read_text('/etc/hostname')", "disabled by configuration"),
        ("SELECT nothing FROM usage", "nothing"),
        ("SELEC", "syntax error"),
    ],
)
async def test_a_query_reads_the_lake_and_nothing_else(business: Business, sql: str, says: str) -> None:
    await business.use(1)
    await business.export()
    with pytest.raises(LakeFault, match=says):
        business.ask(sql)


async def test_an_empty_lake_answers_and_a_missing_one_says_so(business: Business) -> None:
    with pytest.raises(LakeFault, match="no usage lake"):
        business.ask()
    business.folder.mkdir()
    lake_files.write_manifest(business.folder, [])
    assert business.ask("SELECT count(*), sum(amount) FROM charges") == [(0, None)]


async def test_every_edit_of_the_manifest_and_of_a_file_is_found(business: Business) -> None:
    await business.use(1)
    await business.use(2)
    [path, other] = await business.export()
    await business.use(2)
    await business.export()
    assert await edits_missed(business.pool, sorted(table.name for table in LAKE), checks) == []
    (business.folder / path).write_bytes((business.folder / other).read_bytes())
    assert await business.faults() == ["files of the lake are as they were written"]
    manifest = lake_files.read_manifest(business.folder)
    assert [msgspec.structs.astuple(file)[:1] for file in manifest] == sorted((file.path,) for file in manifest)
