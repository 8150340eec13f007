"""Modules of this room as child processes: the program to start, without any setting of the system under test."""

import os
import signal
import sys

from tokenworks.base import config
from tokenworks.base.processes import Program


def module(name: str, *arguments: str, descriptors: tuple[int, ...] = ()) -> Program:
    """`python -m name arguments…`; it is killed when it is to stop, having nothing to put in order."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(config.PREFIX)}
    return Program(
        argv=(sys.executable, "-P", "-m", name, *arguments),
        environ=inherited,
        descriptors=descriptors,
        stop_signal=signal.SIGKILL,
    )
