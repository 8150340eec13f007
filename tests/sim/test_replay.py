"""Histories of the simulation, carried out again on PostgreSQL: the same replies, the same rows, books that hold."""

import pytest

from ledger.books import faults
from tokenworks.base.database import Pool
from tokenworks.sim.plan import plan
from tokenworks.sim.replay import Replay
from tokenworks.sim.scene import scene
from tokenworks.sim.world import run

SEEDS = (3, 12, 21)
REQUESTS = 60


@pytest.mark.parametrize("seed", SEEDS)
async def test_postgresql_does_what_the_store_does(database: Pool, seed: int) -> None:
    result = run(plan(seed, REQUESTS), with_history=True)
    assert result.state is not None
    replay = Replay(database, scene(seed).settings)
    assert await replay.differences(result.history, result.state) == []
    assert await faults(database) == []
