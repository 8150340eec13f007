"""Reach: whether an endpoint's host is one that gateways may connect to, asked when the endpoint is added.

A courtesy: it tells the operator at once. What counts is the gateway's own look at each connection, because a name may
lead elsewhere later.
"""

import asyncio
import socket
from urllib.parse import urlsplit

from tokenworks.core.commands import invalid
from tokenworks.core.networks import Network, why_refused

_RESOLVE_S = 2


async def check(base_url: str, allowed: tuple[Network, ...]) -> None:
    """Refuse a URL whose host has, or leads to, only addresses that are neither public nor allowed.

    A name that leads nowhere now passes: the endpoint may be made before its name is.
    """
    host = urlsplit(base_url).hostname or ""
    try:
        async with asyncio.timeout(_RESOLVE_S):
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return
    reasons = [why_refused(str(address[0]), allowed) for *_, address in found]
    if all(reasons):
        raise invalid(
            f"base_url leads to an address that endpoints may not have: {reasons[0]}. "
            "The setting TOKENWORKS_ENDPOINT_NETWORKS allows networks.",
            "base_url",
        )
