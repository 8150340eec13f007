"""Bucket terms: what one amount, paid before or granted on credit, may be spent on, and the order of drawing.

The amounts themselves live in the ledger (balance) and in slices (what a worker holds); here are only the terms.
"""

from collections.abc import Iterable

import msgspec

from tokenworks.core.tiers import DEFAULT


class Bucket(msgspec.Struct, frozen=True, array_like=True):
    """Terms of a bucket. `models` empty means any. Valid from `valid_from_ns` until before `valid_to_ns`."""

    id: str
    billing_account_id: str
    legal_entity_id: str
    unit: str
    tariff_id: str
    valid_from_ns: int
    valid_to_ns: int
    priority: int = 100
    tier: str = DEFAULT
    models: tuple[str, ...] = ()

    def matches(self, model: str, now_ns: int) -> bool:
        """Whether a request for this model admitted now may draw from the bucket."""
        return self.valid_from_ns <= now_ns < self.valid_to_ns and (not self.models or model in self.models)

    def draw_key(self) -> tuple[int, int, str]:
        """Sort key of the draw order: priority, earliest expiry, id."""
        return (self.priority, self.valid_to_ns, self.id)


def draw_order(buckets: Iterable[Bucket], model: str, now_ns: int) -> list[Bucket]:
    """The buckets a request may draw from, first drawn first."""
    return sorted((bucket for bucket in buckets if bucket.matches(model, now_ns)), key=Bucket.draw_key)
