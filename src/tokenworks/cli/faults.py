"""How a command ends when it cannot do what was asked: one sentence and a hint on standard error, and an exit code.

0 done · 1 failed, or something does not add up · 2 wrong use, value or setting · 3 the office cannot be reached.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager

import typer

from tokenworks.app.reach import OfficeRefused, OfficeUnreachable

FAILED = 1
WRONG_USE = 2
UNREACHABLE = 3

_START_HINT = "Start it with `tokenworks up`, or say where it is with --office URL."
_TOKEN_HINT = "Give the token with --token, or set TOKENWORKS_DATA_DIR to the data folder of the running system."  # noqa: S105 - a sentence
_HINTS = {
    "not_found": "The `list` command of the same group shows the ids there are.",
    "payment_declined": "Nothing was sold and nothing was charged.",
}


class CommandFault(Exception):
    """The command cannot be carried out."""

    def __init__(self, message: str, hint: str = "", code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code


@contextmanager
def told() -> Generator[None]:
    """Turn every expected fault of a command into its sentence on standard error and its exit code."""
    from tokenworks.base.config import SettingsFault  # noqa: PLC0415 - help need not wait for it

    try:
        yield
    except CommandFault as fault:
        stop(fault.message, fault.hint, fault.code)
    except SettingsFault as fault:
        stop(str(fault), "", WRONG_USE)
    except OfficeUnreachable as fault:
        stop(str(fault), _START_HINT, UNREACHABLE)
    except OfficeRefused as fault:
        stop(_sentence(fault), *_meaning(fault))
    except BrokenPipeError:
        raise
    except OSError as fault:
        stop(f"{fault.filename or 'The system'}: {fault.strerror or fault}.", "", FAILED)


def stop(message: str, hint: str, code: int) -> None:
    """Say it and leave. Plain text, so that it reads the same in a terminal, a log and a pipe."""
    sys.stderr.write(f"tokenworks: {message}\n")
    if hint:
        sys.stderr.write(f"  hint: {hint}\n")
    raise typer.Exit(code)


def _sentence(fault: OfficeRefused) -> str:
    where = f" (field: {fault.field})" if fault.field else ""
    return fault.message + where


def _meaning(fault: OfficeRefused) -> tuple[str, int]:
    if fault.status == 401:
        return _TOKEN_HINT, WRONG_USE
    return _HINTS.get(fault.code, ""), WRONG_USE if fault.status == 400 else FAILED
