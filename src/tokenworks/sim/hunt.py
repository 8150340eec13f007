"""The hunt: many seeds, on several cores, each run by itself; what breaks a rule is shrunk at once.

Way in of the room for the command line and for tests.
"""

import multiprocessing
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import msgspec

from tokenworks.sim.plan import plan
from tokenworks.sim.shrink import shrink
from tokenworks.sim.world import run

_SEEDS_PER_PROCESS = 100


class Found(msgspec.Struct, frozen=True):
    """A rule that a seed breaks, and the shortest trace found."""

    seed: int
    rule: str
    text: str
    requests: int
    faults: tuple[str, ...]
    trace: tuple[str, ...]


class SeedRun(msgspec.Struct, frozen=True):
    """What a seed came to."""

    seed: int
    requests: int
    faults: dict[str, int]
    virtual_ms: int
    digest: str
    found: Found | None = None


class Report(msgspec.Struct, frozen=True):
    """What a hunt came to."""

    seeds: int
    first_seed: int
    requests: int
    virtual_s: int
    faults: dict[str, int]
    violations: tuple[Found, ...]


def hunt(
    first: int, seeds: int, requests: int, jobs: int, on_seed: Callable[[SeedRun], None] = lambda _: None
) -> Report:
    """Run the seeds from `first` on, each with so many requests."""
    faults: Counter[str] = Counter()
    found: list[Found] = []
    virtual_ms = 0
    for done in _runs(range(first, first + seeds), requests, jobs):
        faults.update(done.faults)
        virtual_ms += done.virtual_ms
        if done.found is not None:
            found.append(done.found)
        on_seed(done)
    by_name = dict(sorted(faults.items()))
    return Report(seeds, first, seeds * requests, virtual_ms // 1_000, by_name, tuple(found))


def run_seed(seed: int, requests: int, *, is_shrunk: bool = True) -> SeedRun:
    """One seed, and the shortest trace if it breaks a rule."""
    made = plan(seed, requests)
    result = run(made)
    found = None
    if result.violations:
        violation = result.violations[0]
        small, shown = shrink(made, violation.rule) if is_shrunk else (made, result)
        text = next((each.text for each in shown.violations if each.rule == violation.rule), violation.text)
        found = Found(
            seed,
            violation.rule,
            text,
            len(small.asks),
            tuple(f"{each.kind} at {each.at_ms} ms" for each in small.strikes),
            shown.trace,
        )
    return SeedRun(seed, len(made.asks), result.faults, result.virtual_ms, result.digest, found)


def _runs(seeds: range, requests: int, jobs: int) -> Iterator[SeedRun]:
    one = partial(run_seed, requests=requests)
    if jobs == 1:
        yield from map(one, seeds)
        return
    # What died in virtual time is kept frozen, else its `finally` would run: a process is replaced before it is large.
    with multiprocessing.get_context("fork").Pool(jobs, maxtasksperchild=_SEEDS_PER_PROCESS) as pool:
        yield from pool.imap_unordered(one, seeds)
