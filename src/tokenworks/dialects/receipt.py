"""Receipts: what a customer is told of the money, in headers, and at the end of a stream that tells its use.

Amounts are exact decimals in whole units, sums by unit. Decides nothing; what is charged is `charge`'s.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from tokenworks.core.amounts import exact
from tokenworks.core.purse import Charge, Part

_EVENT_END = b"}\n\n"


def charged_fields(charges: tuple[Charge, ...]) -> bytes:
    """Headers of a whole answer: `x-tokenworks-charged: 47 token` and the buckets that paid, in their order."""
    if len(charges) == 1:
        only = charges[0]
        return b"x-tokenworks-charged: %b %b\r\nx-tokenworks-bucket: %b\r\n" % (
            exact(only.amount, only.unit).encode(),
            only.unit.encode(),
            only.bucket_id.encode(),
        )
    told = b"x-tokenworks-charged: %b\r\n" % (_sums((line.unit, line.amount) for line in charges) or b"0")
    return told + _buckets(line.bucket_id for line in charges)


def reserved_fields(parts: tuple[Part, ...]) -> bytes:
    """Headers of a stream, whose charge is not known when it begins: the most that is reserved for it so far."""
    told = b"x-tokenworks-reserved: %b\r\n" % _sums((part.price.unit, part.amount) for part in parts)
    return told + _buckets(part.slice.bucket.id for part in parts)


def with_charges(last: bytes, charges: tuple[Charge, ...]) -> bytes:
    """The last events of a stream, where the one that tells its use tells the charge too."""
    end = last.rfind(_EVENT_END)
    if end < 0:
        return last
    told = b',"tokenworks":' + msgspec.json.encode({"charged": lines(charges)})
    return last[:end] + told + last[end:]


def lines(charges: tuple[Charge, ...]) -> list[dict[str, Any]]:
    """What each bucket paid."""
    return [{"amount": exact(line.amount, line.unit), "unit": line.unit, "bucket": line.bucket_id} for line in charges]


def _sums(amounts: Iterable[tuple[str, int]]) -> bytes:
    sums: dict[str, int] = {}
    for unit, amount in amounts:
        sums[unit] = sums.get(unit, 0) + amount
    return ", ".join(f"{exact(amount, unit)} {unit}" for unit, amount in sums.items()).encode()


def _buckets(buckets: Iterable[str]) -> bytes:
    text = ", ".join(dict.fromkeys(buckets))
    return b"x-tokenworks-bucket: %b\r\n" % text.encode() if text else b""
