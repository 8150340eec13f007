"""Records that cross a wire or lie on disk: golden bytes and round trips, and the order of refusals."""

import pytest

from tokenworks.core import journal
from tokenworks.core.purse import Charge
from tokenworks.core.refusals import Code, Refusal, first
from tokenworks.core.usage import Tokens

USED = Tokens(1, 34, 0, 11, 0)
CHARGE = Charge(7, "bkt_1", "personal@1", "token", USED, 46)
ATTEMPT = journal.Attempt("ep_1", "sup_1", "buy@1", "CNY", USED, 12_000, "finished", 1, 2, 3)

RESERVED = journal.Reserved(7, "bkt_1", "token", 60)
OPENING = journal.Opening(
    "req_1", 9, "le_1", "acc_1", "key_1", "m", stream=True, input_max=40, output_max=20, reserved=(RESERVED,)
)

GOLDEN: list[tuple[journal.Entry, str]] = [
    (journal.Head("jnl_1", "gw-0", 5), "9500a56a6e6c5f31a467772d300501"),
    (OPENING, "9b01a57265715f3109a46c655f31a56163635f31a56b65795f31a16dc32814919407a5626b745f31a5746f6b656e3c"),
    (journal.LeaseClose(7, 14), "9304070e"),
]


@pytest.mark.parametrize(("entry", "golden"), GOLDEN, ids=lambda value: type(value).__name__)
def test_golden_bytes(entry: journal.Entry, golden: str) -> None:
    assert journal.encode(entry).hex() == golden
    assert journal.decode(bytes.fromhex(golden)) == entry


@pytest.mark.parametrize(
    "entry",
    [
        journal.Checkpoint(40, USED, (CHARGE,), (ATTEMPT,)),
        journal.Closing(40, 99, "finished", "reported", USED, USED, USED, ("usage_zero",), (CHARGE,), (ATTEMPT,), 2),
        journal.Closing(40, 99, "client_gone", "counted", USED, USED, None, (), (), (), 0),
    ],
)
def test_round_trip(entry: journal.Entry) -> None:
    assert journal.decode(journal.encode(entry)) == entry


def test_the_first_refusal_takes_precedence() -> None:
    balance, key = Refusal(Code.BALANCE_USED_UP, "b"), Refusal(Code.KEY_INVALID, "k")
    assert first(balance, None, key) == key
    assert first(None, None) is None
