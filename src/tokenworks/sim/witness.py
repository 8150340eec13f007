"""What customers and suppliers saw: the only things that the auditor believes, beside what was sold and the books."""

import msgspec


class Heard(msgspec.Struct, eq=False):
    """One try of a customer. Times are virtual; 0 is never. `tokens` are the deltas that came."""

    number: int
    account: str
    worker: str
    began_ns: int
    request_id: str = ""
    status: int = 0
    code: str = ""
    tokens: int = 0
    usage: tuple[int, int, int] | None = None
    charged: str = ""
    is_whole: bool = False
    is_error: bool = False
    left_ns: int = 0
    ended_ns: int = 0


class Served(msgspec.Struct, eq=False):
    """One call that a supplier got. `usage` is prompt, completion and cached tokens, or a text that is none."""

    number: int
    request_id: str
    endpoint: str
    worker: str
    began_ns: int
    prompt_bytes: int
    limit: int
    choices: int
    stream: bool
    kind: str
    tokens: int = 0
    text_bytes: tuple[int, ...] = ()
    usage: tuple[int, int, int] | str = ""
    status: int = 200
    is_whole: bool = False
    is_gone: bool = False


class Witnesses:
    """Everything seen in a run, and the trace of it for people."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.served: list[Served] = []
        self.lines: list[tuple[int, str]] = []

    def note(self, at_ns: int, text: str) -> None:
        """A line of the trace."""
        self.lines.append((at_ns, text))
