"""A day of the finance department at the command line, on a real system: put right, look back, take away."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cli.terminal import Terminal
from cli.test_operator import BODY, until
from tokenworks.app import caller
from tokenworks.app.spawned import Spawned

Sold = dict[str, Any]


@pytest.fixture(scope="module")
def sold(terminal: Terminal, system: Spawned) -> Sold:
    """A customer with a package and one call that the ledger has posted."""
    customer = terminal.done("customers", "add", "Wang Fang", "--phone", "+8613800000077")["id"]
    order = terminal.done("orders", "add", "--customer", customer, "--offer", "ct-personal-10m")
    key = terminal.done("keys", "add", "--customer", customer, "--name", "laptop")
    with caller.program(system.addresses["gateway"]) as http:
        caller.whole(http, key["secret"], BODY)
    record = until(lambda: terminal.done("usage", "--customer", customer)["items"])[0]
    return {"customer": customer, "order": order, "record": record}


def test_a_refund_is_on_the_statement(terminal: Terminal, sold: Sold) -> None:
    record, customer = sold["record"], sold["customer"]
    made = terminal.done("corrections", "refund", record["request_id"], "--reason", "slow", "--amount", "1")
    assert made["lines"][0]["amount"] == {"amount": 1, "unit": "token"}
    assert terminal.done("corrections", "--customer", customer)["items"] == [made]
    assert terminal.done("corrections", "show", made["id"]) == made
    [line] = terminal.done("bills", "statement", "--customer", customer)["corrections"]
    assert (line["about"], line["reason"]) == (record["request_id"], "slow")
    refused = terminal.run("corrections", "charge-back", "ord_nothing", "--reason", "x")
    assert (refused.code, "ord_nothing" in refused.err) == (1, True)


def test_balances_as_they_were(terminal: Terminal, sold: Sold) -> None:
    customer = sold["customer"]
    just_after = (datetime.fromisoformat(sold["order"]["closed_at"]) + timedelta(milliseconds=1)).isoformat()
    assert terminal.done("balances", "--customer", customer, "--at", "2020-01-01T00:00Z")["items"] == []
    [sold_only] = terminal.done("balances", "--customer", customer, "--at", just_after)["items"]
    assert (sold_only["available"] + sold_only["leased"], sold_only["spent"]) == (10_000_000, 0)
    tax = terminal.done("accounts", "--prefix", "tax/", "--at", "2099-01-01T00:00Z", "--by", "used")["items"]
    assert tax == terminal.done("accounts", "--prefix", "tax/")["items"]


def test_usage_by_day(terminal: Terminal, sold: Sold) -> None:
    entries = terminal.done("usage", "summary", "--by", "day", "--customer", sold["customer"])["items"]
    [tokens] = [each for each in entries if each["unit"] == "token"]
    assert (tokens["requests"], tokens["tokens"]["total"]) == (1, sold["record"]["tokens"]["total"])


def test_the_books_as_a_file(terminal: Terminal, sold: Sold, tmp_path: Path) -> None:
    file = tmp_path / "books.journal"
    told = terminal.done("export", str(file), "--format", "hledger")
    assert told == {"file": str(file), "format": "hledger", "bytes": file.stat().st_size}
    assert f"order/{sold['order']['id']}" in file.read_text("utf-8")
    shown = terminal.run("export", "-", "--format", "beancount", "--from", "2020-01-01T00:00Z")
    assert shown.out.endswith("transactions, complete\n")
    before = file.read_bytes()
    refused = terminal.run("export", str(file), "--format", "hledger", "--from", "yesterday")
    assert (refused.code, file.read_bytes() == before) == (2, True)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_the_lake_answers(terminal: Terminal, sold: Sold) -> None:
    terminal.done("lake", "export")
    assert terminal.done("lake")["items"]
    request = sold["record"]["request_id"]
    sql = f"SELECT model, tokens_output, charges FROM usage WHERE request_id = '{request}'"
    [row] = terminal.done("lake", "query", sql)["items"]
    assert (row["model"], row["charges"][0]["bucket_id"]) == (BODY["model"], sold["order"]["bucket_id"])
    assert terminal.run("lake", "query", "DROP VIEW usage").code == 1
    assert "usage" in terminal.run("lake", "query", "SELECT 'usage' AS word, 1.5::DECIMAL(3,1) AS x").out
