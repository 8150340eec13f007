"""The measurement of the gateway end to end, small: every answer is in the books once, and the books hold."""

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tokenworks.base.config import Settings
from tokenworks.bench import endpoint, ledger
from tokenworks.bench.load import by_zipf, is_whole


def measured(*options: str) -> dict[str, Any]:
    """What a measurement found; on standard error it says its steps, each with a time, and nothing else."""
    command = [sys.executable, "-m", "tokenworks.cli", "bench", *options, "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    steps = run.stderr.splitlines()
    assert [step for step in steps if not re.fullmatch(r" ?\d+:\d\d [A-Z].* …", step)] == []
    assert (run.returncode, steps[-1][6:]) == (0, "Verifying the books …"), run.stdout
    result: dict[str, Any] = json.loads(run.stdout)
    return result


def test_every_answer_is_posted_and_the_books_hold() -> None:
    result = measured("gateway", "--seconds", "1", "--accounts", "20", "--connections", "8", "--runs", "1", "--every")
    ours = result["contenders"]["tokenworks"]
    assert result["verified"] is True
    assert result["failed_checks"] == []
    assert result["other_answers"] == {}
    safest = result["contenders"]["tokenworks-every"]
    assert result["answers"] == result["records"] > ours["runs"][0]["answers"] + safest["runs"][0]["answers"]
    assert min(ours["runs"][0]["answers"], safest["runs"][0]["answers"], safest["cpu_us_per_request"]) > 0
    assert result["conditions"]["durability"] == "interval"
    assert ours["metering"] is True
    assert ours["cpu_us_per_request"] > 0
    assert result["conditions"]["database"]["fsync"] == "on"


def test_every_charge_is_a_transfer_and_the_baseline_ran_on_the_same_database() -> None:
    told: list[str] = []
    plan = ledger.Plan(seconds=1, accounts=50, batch=300, runs=1, connections=(2,))
    result = ledger.measure(Settings(), plan, told.append)
    assert (result.failed_checks, result.is_sound) == ((), True)
    assert result.transfers == result.runs[0].charges > 0
    assert result.baseline_per_s.median > 0
    assert result.conditions.machine.database["synchronous_commit"] == "on"
    assert told[-1] == "Verifying the books"


def test_every_request_of_a_journal_is_stored_and_the_books_hold() -> None:
    result = measured("metering", "--records", "500", "--accounts", "20", "--journals", "3", "--runs", "2")
    assert (result["failed_checks"], result["verified"]) == ([], True)
    assert result["written"] == result["stored"] == 1_000
    assert [run["records"] for run in result["runs"]] == [500, 500]
    assert result["records_per_s"]["low"] > 0


def test_the_endpoints_answer_has_the_size_that_is_said() -> None:
    head, _, body = endpoint.answer().partition(b"\r\n\r\n")
    assert len(body) == endpoint.BODY_BYTES
    assert json.loads(body)["usage"]["completion_tokens"] > 0
    assert f"Content-Length: {len(body)}".encode() in head


@pytest.mark.parametrize(
    ("data", "whole"),
    [
        (b"", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na", False),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nab", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nx: y\r\n\r\nab", True),
        (b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nab", False),
    ],
)
def test_an_answer_is_whole_by_its_length(data: bytes, whole: bool) -> None:
    assert is_whole(data) is whole


def test_keys_are_drawn_by_their_rank() -> None:
    drawn = by_zipf(100, 20_000)
    counts = [drawn.count(rank) for rank in range(100)]
    assert set(drawn) == set(range(100))
    assert counts[0] > counts[1] > counts[3] > counts[9] > counts[50]
    assert drawn == by_zipf(100, 20_000)
