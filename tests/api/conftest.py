"""The office of a test, on a fresh database."""

from collections.abc import AsyncGenerator

import pytest

from api.offices import Office, running
from tokenworks.base.database import Pool


@pytest.fixture
async def office(database: Pool) -> AsyncGenerator[Office]:
    async with running(database) as office:
        yield office
