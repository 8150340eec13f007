"""The demonstration as a user runs it, and `verify` on the folder it leaves: stopped, untouched, then tampered with."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg import Connection

from cli.terminal import Terminal
from tokenworks.app.services import services
from tokenworks.base.config import Settings

Kept = tuple[Path, subprocess.CompletedProcess[str]]
COMMAND = [sys.executable, "-m", "tokenworks.cli", "demo"]


@pytest.fixture(scope="module")
def kept(scratch: Path) -> Kept:
    """A demonstration whose data stays."""
    folder = scratch / "demo"
    command, environ = [*COMMAND, "--json", "--keep", str(folder)], os.environ | {"TOKENWORKS_WORKERS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    return folder, run


def test_the_demonstration_adds_up(kept: Kept) -> None:
    _, run = kept
    assert (run.returncode, run.stderr) == (0, "")
    told = json.loads(run.stdout)
    assert told["verified"] is True
    assert told["model"] == "smollm2-135m"
    assert told["balance_before"] - told["charged"]["amount"] == told["balance_after"]
    assert told["charged"] == {"amount": told["tokens"]["total"], "unit": "token"}
    assert told["bill_total"] == {"amount": "9.9", "unit": "CNY"}
    assert told["supplier_payable"]["unit"] == "CNY"
    assert told["requests"] == 2
    assert told["first_token_ms"] > 0
    assert told["startup_s"] > 0
    assert all(check["ok"] for check in told["checks"])


def test_verify_starts_only_the_database_of_a_stopped_folder(kept: Kept) -> None:
    folder, _ = kept
    report = Terminal({}).done("verify", "--data", str(folder))
    assert report["ok"] is True
    assert not (folder / "run" / "up.json").exists()


async def test_verify_finds_a_row_edited_by_hand(kept: Kept) -> None:
    folder, _ = kept
    async with services(Settings(data_dir=str(folder)), bus=False) as settings:
        url = settings.database_url
        with Connection.connect(url) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("UPDATE usage_record SET charges[1].amount = charges[1].amount - 1")
        command = (sys.executable, "-m", "tokenworks.cli", "verify", "--json", "--database", url)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said, _ = await process.communicate()
    assert process.returncode == 1
    report = json.loads(said)
    assert report["ok"] is False
    assert any("charge" in check["name"] or "sealed" in check["name"] for check in report["checks"] if not check["ok"])


def test_ctrl_c_stops_and_removes_everything(tmp_path: Path) -> None:
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    tmp_path.chmod(0o755)
    process = subprocess.Popen(COMMAND, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
    assert process.stdout
    assert process.stdout.readline().startswith("Starting ")
    process.send_signal(signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said == ""
    assert list(tmp_path.glob("tokenworks-demo-*")) == []
