"""Look for a seed that finds each planted bug: `python tests/sim/search.py [name …]`. Prints rows of `FOUND_BY`."""

import sys
from multiprocessing import Pool

from sim import planted_ledger  # noqa: F401 - registers its bugs
from sim.planted import BUGS, MORE_REQUESTS, REQUESTS
from tokenworks.sim.plan import plan
from tokenworks.sim.world import run

SEEDS = 500


def first_seed(name: str) -> tuple[str, int | None, str]:
    requests = MORE_REQUESTS.get(name, REQUESTS)
    for seed in range(SEEDS):
        with BUGS[name]():
            found = run(plan(seed, requests)).violations
        if found:
            return name, seed, found[0].rule
    return name, None, ""


if __name__ == "__main__":
    names = sys.argv[1:] or list(BUGS)
    with Pool(2) as pool:
        for name, seed, rule in pool.imap(first_seed, names):
            sys.stdout.write(f'    "{name}": {seed},  # {rule}\n')
            sys.stdout.flush()
