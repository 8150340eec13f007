"""What the console needs from the process that mounts it, and nothing more.

The books come in as functions, so that the page is driven by whatever set of books the process has and keeps no
connection of its own. `books.reader`, `books.verifier` and `books.happenings` make them from a database and its feed.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from tokenworks.base.config import Settings
from tokenworks.console.view import Record, State, Verification


class BooksUnreadable(Exception):
    """The books cannot be shown now; the text is one sentence for the operator."""


@dataclass(frozen=True, kw_only=True)
class ConsoleContext:
    """`live_key` is the API key that the page's prompts are sent with; it never reaches the browser.

    `read` gives the whole state of the page, `verify` checks every invariant; both may raise `BooksUnreadable`.
    `happenings` gives the live customer's records as they reach a stage of their life, from now on. `wall_ns` is the
    clock of `base.clock`. `kill` ends the gateway worker of a name as a crash would and gives its process id, or None
    where there is no such worker; without it the page has no button for that.
    """

    settings: Settings
    admin_token: str
    gateway_url: str
    live_key: str
    model: str
    read: Callable[[], Awaitable[State]]
    verify: Callable[[], Awaitable[Verification]]
    happenings: Callable[[], AsyncIterator[Record]]
    wall_ns: Callable[[], int]
    kill: Callable[[str], int | None] | None = None
