"""Replacing the workers of a running system: new processes beside the old ones, and nothing changes if they fail.

PostgreSQL and NATS are real; office, workers and engine are stand-ins.
"""

from pathlib import Path

import pytest

from app.test_up import alive, ask, settings, until, up
from tokenworks.app import claim, renewal
from tokenworks.base.processes import StartFault


def workers(pids: dict[str, int]) -> dict[str, int]:
    return {name: pid for name, pid in pids.items() if name.startswith("worker-")}


async def test_every_worker_is_replaced_and_nothing_else(scratch: Path) -> None:
    wanted = settings(scratch / "renewed")
    with up(wanted) as (_, before):
        renewed = await renewal.renew(wanted)
        now = claim.running_on(wanted.data)
        assert now
        assert renewed.workers == {name: (pid, now.pids[name]) for name, pid in workers(before.pids).items()}
        until(lambda: not any(alive(pid) for pid in workers(before.pids).values()))
        assert all(now.pids[name] == pid for name, pid in before.pids.items() if not name.startswith("worker-"))
        assert ask(before.addresses["gateway"]) in workers(now.pids).values()


async def test_a_version_that_does_not_start_costs_no_worker(scratch: Path) -> None:
    wanted = settings(scratch / "kept")
    failing = scratch / "standins-fail"
    with up(wanted, STANDIN_FAILS_IF=str(failing)) as (_, before):
        failing.touch()
        with pytest.raises(StartFault, match="worker-0 stopped while it was starting"):
            await renewal.renew(wanted)
        now = claim.running_on(wanted.data)
        assert now
        assert now.pids == before.pids
        assert ask(before.addresses["gateway"]) in workers(before.pids).values()
        failing.unlink()
        assert set((await renewal.renew(wanted)).workers) == {"worker-0", "worker-1"}


async def test_without_a_system_there_is_nothing_to_replace(tmp_path: Path) -> None:
    with pytest.raises(StartFault, match="no system runs on"):
        await renewal.renew(settings(tmp_path))
