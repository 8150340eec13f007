"""One real system for all commands, started as an operator starts it, on free ports in a folder of its own."""

from collections.abc import Generator
from pathlib import Path

import pytest

from cli.terminal import Terminal
from tokenworks.app.spawned import Spawned, spawned, throwaway
from tokenworks.base.config import Settings


@pytest.fixture(scope="session")
def system(scratch: Path) -> Generator[Spawned]:
    """A running system with the demonstration operator."""
    with spawned(throwaway(scratch / "system", Settings(workers=1))) as running:
        yield running


@pytest.fixture(scope="session")
def terminal(system: Spawned) -> Terminal:
    """A terminal where that system is found through its data folder alone."""
    return Terminal({"TOKENWORKS_DATA_DIR": str(system.data)})
