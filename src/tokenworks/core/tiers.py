"""The five service tiers, in the order in which they are served when capacity is short."""

from typing import Literal

Tier = Literal["free", "medium", "high", "premium", "ultra"]
TIERS: tuple[Tier, ...] = ("free", "medium", "high", "premium", "ultra")
DEFAULT: Tier = "medium"
RANK: dict[str, int] = {tier: rank for rank, tier in enumerate(TIERS)}


def served_as(bought: str, named: str) -> int:
    """The rank a request is served in: the tier that pays for it, or a lower one that it names itself."""
    rank = RANK.get(bought, RANK[DEFAULT])
    return min(rank, RANK.get(named, rank))
