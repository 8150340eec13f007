"""Console: the operator's web pages, for now the one live page of the office.

Mounted into the office's FastAPI application by `create`. It reads the books and talks to the gateway as a customer
does; it moves no value, and the management API is another room.
"""

from tokenworks.console.context import BooksUnreadable, ConsoleContext
from tokenworks.console.router import create

__all__ = ["BooksUnreadable", "ConsoleContext", "create"]
