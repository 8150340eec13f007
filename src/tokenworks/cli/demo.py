"""`tokenworks demo`: a system of its own, the story through it, and nothing left behind."""

import shutil
import signal
import tempfile
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from tokenworks.app import demo
from tokenworks.app.caller import CallFault
from tokenworks.app.client import OfficeClient, address
from tokenworks.app.demo import DemoFault, Outcome
from tokenworks.app.spawned import spawned, throwaway
from tokenworks.base.config import Settings
from tokenworks.base.processes import StartFault
from tokenworks.cli.faults import WRONG_USE, CommandFault
from tokenworks.cli.story import Story


def play(given: Settings, keep: Path | None, *, quiet: bool) -> Outcome:
    """The whole demonstration; Ctrl-C, and a request to terminate, stop and remove everything too."""
    story = Story(Console(highlight=False, quiet=quiet))
    with _ended_in_order(), _folder(keep) as data:
        settings = throwaway(data, given)
        try:
            with ExitStack() as stack:
                with story.starting():
                    system = stack.enter_context(spawned(settings))
                story.started(system)
                office = stack.enter_context(OfficeClient(address(settings)))
                outcome = demo.play(system, office, story)
                story.ending(kept=str(data) if keep else "")
        except (StartFault, DemoFault, CallFault) as fault:
            raise CommandFault(str(fault), f"With --keep DIR the log stays in {Path('DIR', 'log')}.") from fault
    return outcome


@contextmanager
def _folder(keep: Path | None) -> Generator[Path]:
    if keep is None:
        data = Path(tempfile.mkdtemp(prefix="tokenworks-demo-"))
        try:
            yield data
        finally:
            shutil.rmtree(data)
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise CommandFault(f"{keep} is not an empty folder.", "Name a new one with --keep.", WRONG_USE)
    keep.mkdir(mode=0o700, parents=True, exist_ok=True)
    yield keep.absolute()


@contextmanager
def _ended_in_order() -> Generator[None]:
    """SIGTERM and a closed terminal unwind as Ctrl-C does."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
