"""Runs a command in a network namespace of its own, which nothing reaches but the links named here.

    python inside.py FOLDER IN_PORT OUT_PORT,OUT_PORT… -- COMMAND…

Everything that connects to 127.0.0.1:OUT_PORT inside comes out at the socket FOLDER/out-OUT_PORT; everything that
connects to the socket FOLDER/in comes in at 127.0.0.1:IN_PORT. It needs root, or a kernel that lets users have
namespaces; where neither is given it says so and exits with 3. Only the standard library: nothing is installed.
"""

import asyncio
import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG = 1
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1
FORBIDDEN = 3

_libc = ctypes.CDLL(None, use_errno=True)


def enter() -> None:
    """Leave the machine's network; as root directly, else as the root of a user namespace."""
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(CLONE_NEWNET) == 0:
        return
    if _libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        sys.stderr.write(
            f"network namespaces are forbidden here ({reason}): run the tests as root, in a container with"
            " CAP_SYS_ADMIN, or allow unprivileged user namespaces (sysctl kernel.unprivileged_userns_clone=1)\n"
        )
        sys.exit(FORBIDDEN)
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def bring_up_loopback() -> None:
    """A new namespace has a loopback that is down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14s", b"lo", 0, b"")
        flags = struct.unpack("16sH14s", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14s", b"lo", flags | IFF_UP, b""))


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, passes: asyncio.Event | None) -> None:
    """Pass on what comes, when it may pass; the end too."""
    try:
        while data := await reader.read(1 << 16):
            if passes is not None:
                await passes.wait()
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def join(
    here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    passes: asyncio.Event | None = None,
) -> None:
    """Two connections as one, until both have ended."""
    ways = (pump(here[0], there[1], passes), pump(there[0], here[1], passes))
    await asyncio.wait([asyncio.create_task(way) for way in ways])


async def serve_links(folder: Path, in_port: int, out_ports: list[int]) -> None:
    """Open every link; they are served as long as the loop runs."""

    async def inwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await join((reader, writer), await asyncio.open_connection("127.0.0.1", in_port))
        except OSError:
            writer.close()

    for port in out_ports:

        async def outwards(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int = port) -> None:
            try:
                await join((reader, writer), await asyncio.open_unix_connection(folder / f"out-{port}"))
            except OSError:
                writer.close()

        await asyncio.start_server(outwards, "127.0.0.1", port)
    await asyncio.start_unix_server(inwards, folder / "in")


async def main(folder: Path, in_port: int, out_ports: list[int], command: list[str]) -> int:
    """Run the command; its exit code. SIGTERM goes on to it."""
    await serve_links(folder, in_port, out_ports)
    process = await asyncio.create_subprocess_exec(*command, preexec_fn=_die_with_parent)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, process.terminate)
    return await process.wait()


def _die_with_parent() -> None:
    _libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


if __name__ == "__main__":
    enter()
    bring_up_loopback()
    end = sys.argv.index("--")
    ports = [int(port) for port in sys.argv[3].split(",")]
    sys.exit(asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), ports, sys.argv[end + 1 :])))
