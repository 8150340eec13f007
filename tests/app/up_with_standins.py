"""Runs the supervisor with stand-ins for the Python children; prints what runs, once it does, as one line."""

import sys

import msgspec

from tokenworks.app.claim import Running
from tokenworks.app.up import Modules, up
from tokenworks.base import config


def show(running: Running) -> None:
    print(msgspec.json.encode(running).decode(), flush=True)


if __name__ == "__main__":
    sys.exit(up(config.load(), show, Modules(engine="standin", office="standin", gateway="standin")))
