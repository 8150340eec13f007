"""The archive of the database's log beside a running system: it follows the log from the first backup on.

It outlives the database by a moment, so that an orderly stop leaves nothing out. Not being able to follow stops nobody:
its slot keeps the log for it.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from tokenworks.app.children import Child
from tokenworks.base import log
from tokenworks.base.config import Settings
from tokenworks.base.postgres import Postgres
from tokenworks.base.postgres_backup import WalArchive
from tokenworks.base.processes import StartFault

_log = log.get(__name__)


@asynccontextmanager
async def followed(settings: Settings) -> AsyncGenerator[None]:
    """Follow the log of the embedded database while the body runs, which starts and stops it."""
    child = Child(WalArchive(Postgres(settings.data), settings.backups), settings)
    following = asyncio.create_task(_follow(child, settings.restart_pause_max_ms / 1000))
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait([following])
        await child.stop()


async def _follow(child: Child, pause_s: float) -> None:
    """Until it runs; from then on the child itself is started again when it ends."""
    is_first = True
    while True:
        try:
            await child.start()
        except (StartFault, OSError) as fault:
            # The database is only about to start beside it: that it is not there at first is not worth a line.
            if not is_first:
                _log.warning("the log is not archived yet", extra={"reason": str(fault)})
            is_first = False
            await asyncio.sleep(pause_s)
        else:
            return
