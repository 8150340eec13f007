"""The process of a gateway worker: `python -m tokenworks.app.gateway --listen-fd N --ready-fd M --index I`.

The contract with the supervisor is in `app.children`. What the worker does is in `gateway.worker`.
"""

import argparse
import os
import resource
import socket
import sys

import uvloop

from tokenworks.app import collector, spares
from tokenworks.base import config, log
from tokenworks.base.bus import BusFault
from tokenworks.base.journal import JournalFault
from tokenworks.base.tls import TlsFault
from tokenworks.gateway import worker
from tokenworks.gateway.keywords import KeywordsFault

_log = log.get(__name__)


def main() -> int:
    """Serve until SIGTERM; exit code 0 after that, 1 when the worker cannot start or cannot go on."""
    parser = argparse.ArgumentParser(prog="tokenworks.app.gateway", description="One gateway worker.")
    parser.add_argument("--listen-fd", type=int, required=True, help="descriptor of a listening socket")
    parser.add_argument("--ready-fd", type=int, required=True, help="descriptor that is told `ready`")
    parser.add_argument("--index", type=int, default=0, help="number of this worker")
    parser.add_argument("--go-fd", type=int, help="descriptor that says when to begin, and with which index")
    given = parser.parse_args()
    index = given.index if given.go_fd is None else spares.told(given.go_fd)
    if index is None:
        return 0
    settings = config.load()
    log.set_up(settings, worker.worker_name(settings, index))
    _allow_many_connections()
    collector.look_rarely()
    listener = socket.socket(fileno=given.listen_fd)
    try:
        uvloop.run(worker.run(settings, listener, index, lambda: _tell(given.ready_fd)))
    except* (BusFault, JournalFault, TlsFault, KeywordsFault) as faults:
        for fault in faults.exceptions:
            _log.error("the worker stops", extra={"reason": str(fault)})
        return_code = 1
    else:
        return_code = 0
    return return_code


def _allow_many_connections() -> None:
    """As many descriptors as the machine lets this process have: a usual limit of 1,024 is soon used up."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _tell(ready_fd: int) -> None:
    os.write(ready_fd, b"ready\n")
    os.close(ready_fd)


if __name__ == "__main__":
    sys.exit(main())
