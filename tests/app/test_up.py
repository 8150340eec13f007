"""The supervisor as a process: starting, answering, surviving its children, stopping, and saying why it cannot start.

PostgreSQL and NATS are real; office, workers and engine are stand-ins, so that this is about supervision alone.
"""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from tokenworks.app import claim, renewal
from tokenworks.app.claim import Running
from tokenworks.base import clock, config
from tokenworks.base.config import Settings

T = TypeVar("T")
HERE = Path(__file__).parent
PATIENCE_S = 30


def settings(data: Path, **given: int | str) -> Settings:
    free = {"gateway_port": 0, "office_port": 0, "engine_port": 0, "nats_port": 0, "restart_pause_ms": 1}
    return msgspec.convert(free | {"data_dir": str(data)} | given, Settings)


@contextmanager
def start(wanted: Settings, **environ: str) -> Generator[subprocess.Popen[str]]:
    inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{HERE}:{HERE.parents[1] / 'src'}"}
    with subprocess.Popen(
        [sys.executable, str(HERE / "up_with_standins.py")],
        env=inherited | config.environment(wanted) | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def up(wanted: Settings, **environ: str) -> Generator[tuple[subprocess.Popen[str], Running]]:
    with start(wanted, **environ) as process:
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.communicate(timeout=PATIENCE_S)[1]
        try:
            yield process, msgspec.json.decode(line, type=Running)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE_S)


def refused(wanted: Settings, code: int = 1, **environ: str) -> str:
    with start(wanted, **environ) as process:
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert "Traceback" not in err
    return err.strip().splitlines()[-1]


def ask(url: str) -> int:
    """The pid of whoever answers."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        return int(connection.recv(100))


def until(look: Callable[[], T]) -> T:
    """Look again and again until there is something."""
    deadline_ns = clock.boot_ns() + PATIENCE_S * clock.SECOND
    while clock.boot_ns() < deadline_ns:
        if found := look():
            return found
        os.sched_yield()
    raise AssertionError("nothing came")


def has_claimed(data: Path, pid: int) -> bool:
    """It has the data folder, and with it its signal handlers."""
    try:
        return (data / "lock").read_text().strip() == str(pid)
    except FileNotFoundError:
        return False


def alive(pid: int) -> bool:
    """A process that ended and was not collected by its new parent yet counts as gone."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_everything_answers_and_is_announced(scratch: Path) -> None:
    data = scratch / "up"
    with up(settings(data)) as (process, running):
        assert set(running.pids) == {"postgres", "nats", "engine", "office", "worker-0", "worker-1"}
        assert ask(running.addresses["office"]) == running.pids["office"]
        assert ask(running.addresses["gateway"]) in (running.pids["worker-0"], running.pids["worker-1"])
        assert claim.running_on(data) == running
        for name in ("admin-token", "nats-token", "engine-key"):
            assert (data / "secrets" / name).stat().st_mode & 0o777 == 0o600
            assert (data / "secrets" / name).read_text().strip() not in (data / "run" / "up.json").read_text()
        assert f"process {process.pid}" in refused(settings(data))
    assert process.returncode == 0
    assert claim.running_on(data) is None
    assert not (data / "run" / "up.json").exists()
    assert [name for name, pid in running.pids.items() if alive(pid)] == []


def test_children_that_are_killed_come_back_and_nobody_is_refused(scratch: Path) -> None:
    killed = ("worker-0", "office", "nats", "postgres")
    with up(settings(scratch / "up", workers=1)) as (_, running):
        for name in killed:
            os.kill(running.pids[name], signal.SIGKILL)
        until(lambda: not any(alive(running.pids[name]) for name in killed))
        assert ask(running.addresses["gateway"]) != running.pids["worker-0"]
        assert ask(running.addresses["office"]) != running.pids["office"]

        def all_back() -> bool:
            now = claim.running_on(scratch / "up")
            return now is not None and all(now.pids[name] not in (0, running.pids[name]) for name in killed)

        until(all_back)


def spares_of(supervisor: int) -> set[int]:
    """Children that wait to be told who they are."""
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return {int(pid) for pid in children if b"--go-fd" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_a_spare_takes_the_place_of_what_dies_and_another_one_waits(scratch: Path) -> None:
    data = scratch / "up"
    with up(settings(data, workers=2, spare_after_ms=1)) as (process, running):
        waiting = until(lambda: len(found := spares_of(process.pid)) == 2 and found)
        for name in ("worker-1", "office"):
            os.kill(running.pids[name], signal.SIGKILL)

        def replaced() -> Running | None:
            now = claim.running_on(data)
            changed = now and all(now.pids[name] not in (0, running.pids[name]) for name in ("worker-1", "office"))
            return now if changed else None

        now = until(replaced)
        assert {now.pids["worker-1"], now.pids["office"]} == waiting
        assert ask(running.addresses["office"]) == now.pids["office"]
        others = until(lambda: len(found := spares_of(process.pid) - waiting) == 2 and found)
    assert not any(alive(pid) for pid in waiting | others)


def test_a_renewal_takes_no_spare_which_has_loaded_what_is_to_be_replaced(scratch: Path) -> None:
    data = scratch / "up"
    with up(settings(data, workers=1, spare_after_ms=1)) as (process, running):
        waiting = until(lambda: len(found := spares_of(process.pid)) == 2 and found)
        os.kill(process.pid, renewal.SIGNAL)
        now = until(lambda: (now := claim.running_on(data)) and now.renewals and now)
        assert now.renewal_fault == ""
        assert now.pids["worker-0"] not in {running.pids["worker-0"], *waiting}


def test_a_spare_that_died_is_not_missed(scratch: Path) -> None:
    data = scratch / "up"
    with up(settings(data, workers=1, spare_after_ms=1)) as (process, running):
        waiting = until(lambda: len(found := spares_of(process.pid)) == 2 and found)
        for pid in (*waiting, running.pids["worker-0"]):
            os.kill(pid, signal.SIGKILL)

        def back() -> bool:
            now = claim.running_on(data)
            return now is not None and now.pids["worker-0"] not in (0, running.pids["worker-0"])

        until(back)


def test_what_lost_its_ground_is_not_started_before_that_is_back(scratch: Path) -> None:
    data = scratch / "ground"
    # The pause gives the supervisor time to see that both are gone.
    with up(settings(data, restart_pause_ms=200)) as (_, running):
        for name in ("postgres", "office"):
            os.kill(running.pids[name], signal.SIGKILL)

        def announced() -> Running | None:
            now = claim.running_on(data)
            return now if now and now.pids["office"] not in (0, running.pids["office"]) else None

        assert until(announced).pids["postgres"] not in (0, running.pids["postgres"])


def test_a_supervisor_that_is_killed_takes_its_children_along_and_can_be_started_again(scratch: Path) -> None:
    data = scratch / "up"
    with up(settings(data, workers=1)) as (process, before):
        # With the same ports again: what the killed one still holds must be let go in time.
        ports = {
            f"{name}_port": int(before.addresses[name].rpartition(":")[2]) for name in ("gateway", "nats", "engine")
        }
        process.kill()
        process.wait()
        assert claim.running_on(data) is None
        with up(settings(data, workers=1, **ports)) as (_, after):
            assert after.addresses["gateway"] == before.addresses["gateway"]
            until(lambda: not any(alive(pid) for pid in before.pids.values()))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_it_also_while_it_is_starting(scratch: Path, number: signal.Signals) -> None:
    data = scratch / "up"
    with start(settings(data)) as process:
        until(lambda: has_claimed(data, process.pid))
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, "Traceback" in err) == (0, False), err
    assert "stopped" in err.splitlines()[-1]
    assert out == "" or not alive(msgspec.json.decode(out, type=Running).pids["postgres"])


def test_a_child_that_cannot_start_is_named(scratch: Path) -> None:
    said = refused(settings(scratch / "up"), STANDIN_FAILS="yes")
    assert said.endswith("stopped while it was starting (exit code 1); the lines above say why")


@pytest.mark.parametrize("name", ["gateway", "nats"])
def test_a_port_in_use_is_named_with_its_setting(scratch: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(settings(scratch / "up", **{f"{name}_port": port}))
    assert f"port {port} on 127.0.0.1 is in use" in said
    assert f"TOKENWORKS_{name.upper()}_PORT" in said


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"database_url": "postgresql://me:hush@127.0.0.1:9/x"}, 3, "the database at 127.0.0.1:9/x cannot be used"),
        ({"nats_url": "nats://127.0.0.1:9"}, 1, "NATS at nats://127.0.0.1:9 cannot be used"),
        ({"host": "192.0.2.1"}, 1, "this machine does not have the address '192.0.2.1'"),
        ({"host": "no-such-host.invalid"}, 1, "there is no address for 'no-such-host.invalid'"),
        ({"tls_cert_file": "/no/cert", "tls_key_file": "/no/key"}, 2, "/no/cert or /no/key cannot be read"),
        ({"tls_cert_file": "/no/cert"}, 2, "TOKENWORKS_TLS_CERT_FILE and TOKENWORKS_TLS_KEY_FILE are set together"),
        ({"safety_keywords_file": "/no/words"}, 2, "/no/words cannot be read"),
        ({"data_dir": "/proc/nowhere"}, 1, "/proc/nowhere"),
        ({"data_dir": "/dev/null"}, 1, "/dev/null"),
    ],
)
def test_what_cannot_be_used_is_told_in_one_sentence(
    scratch: Path, given: dict[str, str], code: int, said: str
) -> None:
    sentence = refused(settings(scratch / "up", **given), code)
    assert sentence.startswith("tokenworks: ")
    assert said in sentence
    assert "hush" not in sentence
