"""Addresses of endpoints: the base URL of a server, checked and brought to one form. No network."""

from urllib.parse import urlsplit

from tokenworks.core.commands import invalid

_PATHS_BEYOND = ("/chat/completions", "/completions", "/models", "/embeddings", "/messages")


def base_url(text: str) -> str:
    """`HTTPS://Engine.example/v1/` → `https://engine.example/v1`; refuses what requests could not be sent to.

    The URL ends before `/chat/completions`. A user name, a query or a fragment in it is refused: a key belongs into
    the key's field, where it is not shown.
    """
    if text != text.strip() or not text.isascii() or any(sign.isspace() for sign in text):
        raise invalid("base_url has spaces or characters outside ASCII.", "base_url")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError as fault:
        raise invalid(f"base_url is no URL: {fault}.", "base_url") from fault
    if parts.scheme not in ("http", "https") or not host:
        raise invalid("base_url begins with http:// or https:// and names a host.", "base_url")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise invalid("base_url has no user name, query or fragment; a key goes into api_key.", "base_url")
    path = parts.path.rstrip("/")
    if path.endswith(_PATHS_BEYOND):
        raise invalid("base_url ends before /chat/completions, for example https://engine.example/v1.", "base_url")
    shown_host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown_host}{'' if port is None else f':{port}'}{path}"
