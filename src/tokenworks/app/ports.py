"""Listening sockets and free ports, taken by the parent before any child starts, so that a port in use is said at once.

The parent keeps the sockets of gateway and office open and hands them to its children: while a child is replaced,
connections wait in the socket's queue and none is refused.
"""

import asyncio
import errno
import socket

from tokenworks.base import hosts
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault

_BACKLOG = 4096
_TRIES = 10
_PAUSE_S = 0.1


async def listen(host: str, port: int, variable: str, host_variable: str = "TOKENWORKS_HOST") -> socket.socket:
    """A listening socket; the variables are the settings to name when it cannot be had. Port 0 gives a free one."""
    for attempt in range(1, _TRIES + 1):
        try:
            return _bind(host, port)
        except OSError as fault:
            # A system that was killed a moment ago may still be letting go of the port.
            if fault.errno != errno.EADDRINUSE or attempt == _TRIES:
                raise StartFault(_sentence(fault, host, port, variable, host_variable)) from fault
        await asyncio.sleep(_PAUSE_S)
    raise AssertionError("the last try returns or raises")


async def free_port(
    port: int, variable: str, host: str = hosts.LOOPBACK, host_variable: str = "TOKENWORKS_HOST"
) -> int:
    """The port on an address if it is free, any free one for 0. For servers that open their port themselves."""
    with await listen(host, port, variable, host_variable) as probe:
        return port_of(probe)


def port_of(listener: socket.socket) -> int:
    """The port a socket listens on."""
    return int(listener.getsockname()[1])


def url_of(host: str, port: int) -> str:
    """What is given to whoever is on this machine to reach a socket that listens there."""
    return hosts.url("http", host, port)


def gateway_url(settings: Settings) -> str:
    """Where the customers' API is, for whoever is on this machine."""
    return hosts.url("https" if settings.tls_cert_file else "http", settings.host, settings.gateway_port)


def _bind(host: str, port: int) -> socket.socket:
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _sentence(fault: OSError, host: str, port: int, variable: str, host_variable: str) -> str:
    if isinstance(fault, socket.gaierror):
        return f"{host_variable}: there is no address for {host!r}"
    if fault.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is in use; stop what uses it or set {variable} to another port (0 takes a free one)"
        )
    if fault.errno == errno.EADDRNOTAVAIL:
        return f"{host_variable}: this machine does not have the address {host!r}"
    if fault.errno == errno.EACCES:
        return f"no permission to listen on port {port}; set {variable} to a port above 1023"
    return f"cannot listen on {host} port {port}: {fault.strerror}"
