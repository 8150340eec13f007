"""Networks: which addresses endpoints may have. Public ones, and those within networks that a setting allows.

Whoever may add an endpoint chooses where gateways connect to and send requests. Without a rule that reaches everything
that this machine reaches: databases, consoles, and the metadata service of a cloud, which gives credentials away. Pure:
names are resolved by whoever asks, and the address that was judged is the one that is connected to.
"""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

# Metadata and host services of clouds. Some look public, some lie in networks that people allow: each must be named.
_METADATA = frozenset(
    map(
        ip_address,
        ("169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254"),
    )
)
# IPv6 addresses that carry an IPv4 address, which is where such a connection ends.
_TRANSLATED = (ip_network("64:ff9b::/96"), ip_network("64:ff9b:1::/48"))
# Not routed in the internet, whatever the version of the standard library says of them.
_SPECIAL = tuple(map(ip_network, ("0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15")))


class NetworkFault(ValueError):
    """Not a network; the text says what one looks like."""


def parse_networks(text: str) -> tuple[Network, ...]:
    """`parse_networks("10.0.0.0/8 ::1")` → two networks; else a `NetworkFault`."""
    try:
        return tuple(ip_network(item) for item in text.split())
    except ValueError as fault:
        raise NetworkFault(f"{fault}; networks look like 10.0.0.0/8 or fd00::/8, with spaces between them") from fault


def why_refused(text: str, allowed: tuple[Network, ...]) -> str:
    """What speaks against connecting to this address, in a few words; empty if nothing does."""
    address = _meant(ip_address(text))
    if address in _METADATA:
        is_named = any(network.num_addresses == 1 and address in network for network in allowed)
        return "" if is_named else f"{address} is a cloud's metadata service"
    if any(address.version == network.version and address in network for network in allowed):
        return ""
    kind = _kind(address)
    return f"{address} is {kind}" if kind else ""


def _meant(address: Address) -> Address:
    """The IPv4 address behind an IPv6 one that only wraps it."""
    if isinstance(address, IPv4Address):
        return address
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _kind(address: Address) -> str:
    kinds = (
        ("this machine", address.is_loopback or address.is_unspecified),
        ("a link-local address", address.is_link_local),
        ("a multicast address", address.is_multicast),
        ("a private address", address.is_private),
        ("not a public address", not address.is_global or any(address in network for network in _SPECIAL)),
    )
    return next((kind for kind, applies in kinds if applies), "")
