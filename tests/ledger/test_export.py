"""The exported books: names that can be read back, grammars that the real beancount accepts, balances equal to ours."""

import re
from collections import defaultdict
from decimal import Decimal
from pathlib import Path

import pytest
from beancount import loader
from beancount.core import data
from hypothesis import given
from hypothesis import strategies as st

from ledger.books import SEALED as SEALED_TABLES
from ledger.books import SECOND, Journal, bucket, charge, head, lease, sell
from tokenworks.base.database import Pool
from tokenworks.core import amounts, plain_text
from tokenworks.core.corrections import Charged
from tokenworks.core.journal import LeaseClose
from tokenworks.core.plain_text import Format, Leg, Transaction
from tokenworks.ledger import corrections
from tokenworks.ledger.balance import accounts
from tokenworks.ledger.buckets import expire_due
from tokenworks.ledger.export import Extent, export
from tokenworks.ledger.store import transaction

DAY = 86_400 * SECOND
PART = re.compile(r"[A-Z0-9][A-Za-z0-9-]*")
CODES = st.one_of(
    st.text(max_size=20),
    st.text("abcz019_-.@/Z", max_size=20),
    st.sampled_from(["payable/my-pool", "bucket/bkt_06f1/issued", "receivable/carrier/sandbox.example", "tax/output"]),
).filter(bool)


@given(CODES.filter(lambda entity: "/" not in entity), CODES)
def test_a_name_is_in_the_grammar_and_reads_back(entity: str, code: str) -> None:
    name = plain_text.account_name(entity, code)
    root, *parts = name.split(":")
    assert root in {"Assets", "Liabilities", "Equity", "Income", "Expenses"}
    assert all(PART.fullmatch(part) for part in parts), name
    assert plain_text.account_of(name) == (entity, code)


def test_names_and_lines_as_people_read_them() -> None:
    assert plain_text.account_name("le", "payable/my-pool") == "Liabilities:Le:Payable:My--pool"
    assert plain_text.account_name("le", "bucket/bkt_06f1/spent") == "Equity:Le:Bucket:Bkt-06f1:Spent"
    assert plain_text.account_name("le", "cost/tokens/zeta.ai") == "Expenses:Le:Cost:Tokens:Z7aetaZ2eai"
    one = Transaction(
        "usage_posted", 'journal/a"b;c/9', 1_764_633_599_999_999_999, 0, (Leg("Assets:A", "CNY", 9_339_622_642),)
    )
    assert plain_text.writer("beancount").transaction(one) == (
        '\n2025-12-01 * "usage_posted" "journal/a\\"b;c/9"\n  posted: "2025-12-01T23:59:59.999999999Z"\n'
        '  used: "1970-01-01T00:00:00.000000000Z"\n  Assets:A  9.339622642 CNY\n'
    )
    assert plain_text.writer("hledger").transaction(one) == (
        '\n2025-12-01 * usage_posted | journal/a"b c/9\n    ; posted:2025-12-01T23:59:59.999999999Z\n'
        "    ; used:1970-01-01T00:00:00.000000000Z\n    Assets:A  9.339622642 CNY\n"
    )


async def business(pool: Pool) -> None:
    """Sales, use, expiry and corrections over several days."""
    await sell(pool, bucket("b"))
    await sell(pool, bucket("short", until_s=2, priority=1), granted=500)
    first, second = await lease(pool, 1, 50), await lease(pool, 2, 300)
    book = Journal()
    book.close(book.open(first), charge(first, 40))
    book.add(LeaseClose(first.lease_id, 10))
    book.close(book.open(second), charge(second, 301))
    await book.ship(pool, DAY)
    await expire_due(pool, 2 * DAY)
    async with transaction(pool, "shop", 3 * DAY, SEALED_TABLES) as conn:
        made = head("cor_1", "usage_refunded", "req-j1-1", 3 * 86_400)
        await corrections.refund(conn, made, [Charged(0, first.bucket.id, "token", 40)], (15, "token"), 9 * DAY)


async def text(pool: Pool, form: Format, extent: Extent) -> str:
    async with pool.connection() as conn:
        await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        return "".join([piece async for piece in export(conn, form, extent)])


@pytest.mark.parametrize(
    "extent",
    [Extent(), Extent(from_ns=DAY), Extent(from_ns=DAY + 1, to_ns=3 * DAY), Extent(legal_entity_id="le")],
    ids=["all", "from a day on", "in between", "one seller"],
)
async def test_beancount_loads_the_books_and_its_balances_are_ours(
    database: Pool, tmp_path: Path, extent: Extent
) -> None:
    await business(database)
    file = tmp_path / "books.beancount"
    file.write_text(await text(database, "beancount", extent), "utf-8")
    entries, errors, _ = loader.load_file(str(file))
    assert errors == []
    sums: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for entry in entries:
        for leg in entry.postings if isinstance(entry, data.Transaction) else ():
            sums[leg.account, leg.units.currency] += leg.units.number
    if extent.to_ns is None:
        async with database.connection() as conn:
            ours = {
                (plain_text.account_name(each.legal_entity_id, each.code), plain_text.commodity(each.unit)): Decimal(
                    amounts.exact(each.balance if each.debit_normal else -each.balance, each.unit)
                )
                for each in await accounts(conn, "")
                if each.balance
            }
        assert {key: amount for key, amount in sums.items() if amount} == ours
    events = {entry.narration for entry in entries if isinstance(entry, data.Transaction)}
    assert ("correction/cor_1" in events) == (extent.to_ns is None)
    assert sum(isinstance(entry, data.Balance) for entry in entries) >= 10


async def test_beancount_finds_a_changed_amount(database: Pool, tmp_path: Path) -> None:
    await business(database)
    file = tmp_path / "books.beancount"
    file.write_text((await text(database, "beancount", Extent())).replace("9.9 CNY", "9.8 CNY"), "utf-8")
    assert loader.load_file(str(file))[1] != []


async def test_the_hledger_journal_balances_line_by_line(database: Pool) -> None:
    """Every transaction sums to nothing in each commodity, every assertion is what the lines before it add up to."""
    await business(database)
    journal = await text(database, "hledger", Extent(from_ns=DAY))
    running: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    declared = set(re.findall(r"^account (\S+)$", journal, re.MULTILINE))
    for block in journal.split("\n\n")[1:]:
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for name, amount, unit, _, asserted in re.findall(
            r"^    ([A-Z]\S+)  (-?[\d.]+) ([A-Z]+)( = (-?[\d.]+) [A-Z]+)?$", block, re.MULTILINE
        ):
            assert name in declared
            sums[unit] += Decimal(amount)
            running[name, unit] += Decimal(amount)
            assert not asserted or running[name, unit] == Decimal(asserted)
        assert set(sums.values()) <= {Decimal(0)}
    assert re.search(r"\n; \d+ transactions, complete\n$", journal)


async def test_empty_books_are_exported_too(database: Pool, tmp_path: Path) -> None:
    file = tmp_path / "books.beancount"
    file.write_text(await text(database, "beancount", Extent()), "utf-8")
    assert loader.load_file(str(file))[1] == []
