"""The five service tiers, in the order in which they are served when capacity is short."""

from typing import Literal

Tier = Literal["free", "medium", "high", "premium", "ultra"]
TIERS: tuple[Tier, ...] = ("free", "medium", "high", "premium", "ultra")
DEFAULT: Tier = "medium"
