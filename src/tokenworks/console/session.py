"""Who may see the console: the bearer of the admin token, or of the cookie that the token was exchanged for.

The cookie holds an expiry and a signature made with the admin token, never the token itself; a new admin token ends all
sessions. There are no users or roles yet.
"""

import hashlib
import hmac

from fastapi import Request, Response

COOKIE = "tokenworks_console"
SESSION_S = 12 * 3600
_SECOND = 1_000_000_000


def token_is_right(admin_token: str, given: str) -> bool:
    """Constant-time comparison; an empty admin token lets nobody in."""
    return bool(admin_token) and hmac.compare_digest(admin_token.encode(), given.encode())


def issue(admin_token: str, now_ns: int) -> str:
    """A cookie value that is good for `SESSION_S` seconds."""
    expires_s = now_ns // _SECOND + SESSION_S
    return f"{expires_s}.{_sign(admin_token, expires_s)}"


def holds(admin_token: str, cookie: str, now_ns: int) -> bool:
    """Whether this cookie value was issued for this admin token and has not expired."""
    expires, _, signature = cookie.partition(".")
    if not admin_token or not (expires.isascii() and expires.isdigit()) or len(expires) > 12:
        return False
    expires_s = int(expires)
    return (
        hmac.compare_digest(_sign(admin_token, expires_s).encode(), signature.encode())
        and now_ns // _SECOND < expires_s
    )


def admitted(request: Request, admin_token: str, now_ns: int) -> bool:
    """Whether the request carries the bearer token or a good cookie."""
    scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token_is_right(admin_token, bearer.strip())
    return holds(admin_token, request.cookies.get(COOKIE, ""), now_ns)


def log_in(response: Response, request: Request, admin_token: str, now_ns: int) -> None:
    """Set the session cookie: unreadable for scripts, never sent from another site."""
    response.set_cookie(
        COOKIE,
        issue(admin_token, now_ns),
        max_age=SESSION_S,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def log_out(response: Response) -> None:
    """Forget the session cookie."""
    response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")


def _sign(admin_token: str, expires_s: int) -> str:
    return hmac.new(admin_token.encode(), f"console {expires_s}".encode(), hashlib.sha256).hexdigest()
