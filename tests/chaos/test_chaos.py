"""The ordeal end to end, small: parts of a real system are killed under load, and not a token is lost or doubled."""

import json
import os
import subprocess
import sys


def test_killed_parts_lose_and_double_nothing() -> None:
    command = [sys.executable, "-m", "tokenworks.cli", "chaos", "--json", "--kills", "6", "--seconds", "6"]
    command += ["--rate", "100", "--workers", "2", "--accounts", "30"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ)
    assert run.stdout, run.stderr
    result = json.loads(run.stdout)
    assert result["violations"] == []
    assert result["failed_checks"] == []
    assert result["verified"] is True
    assert (result["double_charged"], result["negative_balances"], result["unproven"]) == (0, 0, 0)
    assert sum(result["kills"].values()) == 6
    assert result["kills"].keys() >= {"worker", "office", "nats", "endpoint"}
    assert result["requests"] == sum(result["answers"].values())
    assert result["tokens_clients_counted"] == result["tokens_posted"] > 0
    assert run.returncode == 0
