"""API: the management API of the office over HTTP. Nothing is decided here; the rooms decide."""

from tokenworks.api.application import create
from tokenworks.api.office import OfficeContext

__all__ = ["OfficeContext", "create"]
