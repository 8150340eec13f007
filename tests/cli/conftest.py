"""A terminal for the commands, next to the session's real system."""

import pytest

from cli.terminal import Terminal
from tokenworks.app.spawned import Spawned


@pytest.fixture(scope="session")
def terminal(system: Spawned) -> Terminal:
    """A terminal where that system is found through its data folder alone."""
    return Terminal({"TOKENWORKS_DATA_DIR": str(system.data)})
