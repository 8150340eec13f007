"""Shrinking: from a plan that breaks a rule to a small one that still breaks it.

Everything of a plan draws its chance by its own name, so what is left goes on as before, as far as the rest lets it.
Parts are left out in halves, then in smaller pieces (Zeller's delta debugging), faults before requests.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from tokenworks.sim.plan import Plan
from tokenworks.sim.world import Result, run

T = TypeVar("T")

RUNS_MAX = 250


class _Budget:
    """Runs that may still be made, and what counts as the same violation."""

    def __init__(self, rule: str, runs: int) -> None:
        self.left = runs
        self._rule = rule

    def breaks(self, plan: Plan) -> bool:
        """Whether the plan still breaks the rule."""
        self.left -= 1
        return any(violation.rule == self._rule for violation in run(plan).violations)


def shrink(plan: Plan, rule: str, runs_max: int = RUNS_MAX) -> tuple[Plan, Result]:
    """The smallest plan found that breaks the rule, and its run with the trace."""
    budget = _Budget(rule, runs_max)
    for kind in sorted({strike.kind for strike in plan.strikes}):
        less = msgspec.structs.replace(plan, strikes=tuple(each for each in plan.strikes if each.kind != kind))
        if budget.left > 0 and budget.breaks(less):
            plan = less
    plan = _fewer(plan, plan.strikes, lambda kept: msgspec.structs.replace(plan, strikes=kept), budget)
    strikes = plan.strikes
    plan = _fewer(plan, plan.asks, lambda kept: Plan(plan.seed, kept, strikes), budget)
    asks = plan.asks
    plan = _fewer(plan, plan.strikes, lambda kept: Plan(plan.seed, asks, kept), budget)
    return plan, run(plan, with_trace=True)


def _fewer(plan: Plan, parts: tuple[T, ...], make: Callable[[tuple[T, ...]], Plan], budget: _Budget) -> Plan:
    """Leave out pieces of `parts`, halves first, as long as the rule is still broken."""
    size = max(1, len(parts) // 2)
    while parts and budget.left > 0:
        start = 0
        while start < len(parts) and budget.left > 0:
            kept = _without(parts, start, size)
            if budget.breaks(make(kept)):
                parts = kept
                plan = make(kept)
            else:
                start += size
        if size == 1:
            break
        size = max(1, size // 2)
    return plan


def _without(parts: Sequence[T], start: int, size: int) -> tuple[T, ...]:
    return (*parts[:start], *parts[start + size :])
