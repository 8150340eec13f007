"""The operator's admin token, which opens the management API. Where it is stored and shown is the composition's."""

import hmac

_SCHEME = "bearer "


def admits(authorization: str, admin_token: str) -> bool:
    """Whether an `Authorization` header carries the token. Takes as long for a near miss as for a far one.

    An empty token admits nobody: it means that none was set, not that none is needed.
    """
    if not admin_token or not authorization.lower().startswith(_SCHEME):
        return False
    presented = authorization[len(_SCHEME) :].strip()
    return hmac.compare_digest(presented.encode(), admin_token.encode())
