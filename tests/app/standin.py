"""A stand-in for office, worker and engine: says `ready`, answers every connection with its pid, stops on SIGTERM."""

import argparse
import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

from tokenworks.app import spares


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--ready-fd", type=int, required=True)
    parser.add_argument("--listen-fd", type=int)
    parser.add_argument("--index", type=int)
    parser.add_argument("--go-fd", type=int)
    given = parser.parse_args()
    if given.go_fd is not None and spares.told(given.go_fd) is None:
        sys.exit(0)
    if os.environ.get("STANDIN_FAILS") == "yes" or Path(os.environ.get("STANDIN_FAILS_IF", "/nowhere")).exists():
        sys.exit("the stand-in was told to fail")
    signal.signal(signal.SIGTERM, stop)
    os.write(given.ready_fd, b"ready\n")
    os.close(given.ready_fd)
    if given.listen_fd is None:
        signal.pause()
    serve(socket.socket(fileno=given.listen_fd))


def serve(listener: socket.socket) -> None:
    listener.setblocking(True)
    while True:
        with listener.accept()[0] as connection:
            connection.sendall(str(os.getpid()).encode())


def stop(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


if __name__ == "__main__":
    main()
