"""The measurement of very many keys end to end, small."""

from tokenworks.base.config import Settings
from tokenworks.bench import cold_keys


def test_a_cold_key_is_asked_for_once_and_no_other_is_loaded() -> None:
    told: list[str] = []
    result = cold_keys.measure(Settings(), cold_keys.Plan(keys=500, accounts=5, asked=20), told.append)
    assert (result.failed_checks, result.other_answers, result.is_sound) == ((), {}, True)
    assert (result.cold.requests, result.cold.lookups, result.cold.lookups_most) == (20, 20, 1)
    assert (result.warm.requests, result.warm.lookups, result.warm.lookups_most) == (20, 0, 0)
    assert result.answers == result.records == 46
    assert 0 < result.snapshot_bytes < 4_000
    assert told[-1] == "Verifying the books"
