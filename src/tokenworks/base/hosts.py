"""Addresses of this machine: what a program here uses to reach a socket that listens on one of them."""

LOOPBACK = "127.0.0.1"


def seen_from_here(host: str) -> str:
    """Loopback for a socket that listens on every address, else the address itself."""
    return {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - this is what such a host is replaced by


def url(scheme: str, host: str, port: int) -> str:
    """What is given to whoever is on this machine: `url("http", "::", 80)` → `http://[::1]:80`."""
    here = seen_from_here(host)
    return f"{scheme}://{f'[{here}]' if ':' in here else here}:{port}"
