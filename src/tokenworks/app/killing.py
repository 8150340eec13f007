"""Killing a gateway worker on purpose, for the live page of the demonstration: SIGKILL, as a crash would be.

Only workers of the system on this data folder can be meant. The process is held by a descriptor while it is looked at,
so that another process which got the same number meanwhile is never hit.
"""

import os
import signal
from pathlib import Path

from tokenworks.app import claim
from tokenworks.base import log

_MODULE = b"tokenworks.app.gateway"

_log = log.get(__name__)


def kill_worker(data: Path, name: str) -> int | None:
    """Kill the worker that calls itself by this name; its process id, or None if it does not run here now."""
    running = claim.running_on(data)
    machine, _, index = name.rpartition("-")
    pid = running.pids.get(f"worker-{index}", 0) if running and running.settings.get("gateway_name") == machine else 0
    if not pid:
        return None
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    try:
        if _MODULE not in Path(f"/proc/{pid}/cmdline").read_bytes():
            return None
        signal.pidfd_send_signal(process, signal.SIGKILL)
    except (ProcessLookupError, FileNotFoundError):
        return None
    finally:
        os.close(process)
    _log.warning("killed a worker, as the live page asked", extra={"worker": name, "pid": pid})
    return pid
