"""A clerk's process: `python -m tokenworks.app.clerk --socket-fd N`. What it does is in `meter.clerks`.

The office starts it, and it ends with the office. The settings come through the environment.
"""

import argparse
import socket
import sys

import psycopg
import uvloop

from tokenworks.app import collector
from tokenworks.base import config, database, log
from tokenworks.base.config import Settings
from tokenworks.base.database import DatabaseFault
from tokenworks.meter import clerks
from tokenworks.meter.desk import Desk

# One posts, one answers who only asks, one is spare.
_POOL_MAX = 3
# What is read of a backlog at once stays below it: none of it is ever in a cycle.
_YOUNG_OBJECTS = 1_000_000

_log = log.get(__name__)


def main() -> int:
    """Post until the office is gone; exit code 1 when the clerk cannot start or go on."""
    parser = argparse.ArgumentParser(prog="tokenworks.app.clerk", description="A process that posts usage.")
    parser.add_argument("--socket-fd", type=int, required=True, help="descriptor of the socket to the office")
    given = parser.parse_args()
    settings = config.load()
    log.set_up(settings, "clerk")
    collector.look_rarely(_YOUNG_OBJECTS)
    try:
        uvloop.run(_run(settings, socket.socket(fileno=given.socket_fd)))
    except (DatabaseFault, psycopg.OperationalError) as fault:
        _log.error("a clerk stops", extra={"reason": str(fault).partition("\n")[0]})
        return 1
    return 0


async def _run(settings: Settings, office: socket.socket) -> None:
    pool = await database.open_pool(settings.database_url, max_size=_POOL_MAX)
    try:
        await clerks.serve(Desk(pool), office)
    finally:
        await pool.close()


if __name__ == "__main__":
    sys.exit(main())
