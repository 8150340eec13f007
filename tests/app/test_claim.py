"""The data folder: one owner, secrets made once, and what other commands are told."""

import os
from pathlib import Path

import pytest

from tokenworks.app import claim
from tokenworks.app.claim import Running
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    def claim_again() -> None:
        with claim.claimed(tmp_path):
            pass

    with claim.claimed(tmp_path), pytest.raises(StartFault, match=rf"already running on .* \(process {os.getpid()}\)"):
        claim_again()
    claim_again()


def test_a_secret_is_made_once_and_kept_private(tmp_path: Path) -> None:
    first = claim.secret(tmp_path, "admin-token")
    assert len(first) > 40
    assert claim.secret(tmp_path, "admin-token") == first
    assert claim.secret(tmp_path, "nats-token") != first
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "secrets" / "admin-token").stat().st_mode & 0o777 == 0o600


def test_what_runs_is_found_only_while_its_owner_lives(tmp_path: Path) -> None:
    running = Running(pid=1, started_at_ns=2, addresses={"office": "http://127.0.0.1:1"}, pids={}, settings={})
    assert claim.running_on(tmp_path) is None
    with claim.claimed(tmp_path):
        claim.announce(tmp_path, running)
        assert claim.running_on(tmp_path) == running
    assert claim.running_on(tmp_path) is None
    claim.withdraw(tmp_path)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:hush@host:5432/db?x=1", "postgresql://me@host:5432/db?x=1"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://postgres@/db?host=/a/b", "postgresql://postgres@/db?host=/a/b"),
        ("nats://a:b@h:1", "nats://a@h:1"),
        ("", ""),
    ],
)
def test_a_password_is_taken_out_of_a_url(url: str, shown: str) -> None:
    assert claim.without_password(url) == shown


def test_secret_settings_are_left_out() -> None:
    secret = Settings(
        admin_token="hush1",
        nats_token="hush2",
        engine_api_key="hush3",
        safety_token="hush5",
        database_url="x://a:hush4@b",
    )
    shown = claim.without_secrets(secret)
    assert "hush" not in str(shown)
    assert shown["database_url"] == "x://a@b"
    assert set(Settings.__struct_fields__) - set(shown) == {
        *("admin_token", "nats_token", "engine_api_key", "safety_token")
    }
