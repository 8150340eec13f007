"""Whether a demonstration adds up: the true story does, and every single figure changed is found."""

from typing import Any

import msgspec
import pytest

from tokenworks.app import adding_up
from tokenworks.app.adding_up import Facts
from tokenworks.app.caller import Call


def cny(amount: str) -> dict[str, str]:
    return {"amount": amount, "unit": "CNY"}


def call(request_id: str, read: int, written: int) -> Call:
    return Call(
        request_id=request_id,
        text="…",
        tokens_prompt=read,
        tokens_completion=written,
        first_token_ms=80,
        duration_ms=900,
        streamed=True,
    )


def record(request_id: str, read: int, cached: int, written: int, cost: str) -> dict[str, Any]:
    tokens = {"input": read - cached, "cached_input": cached, "cache_write": 0, "output": written, "reasoning": 0}
    total = read + written
    return {
        "request_id": request_id,
        "tokens": tokens | {"total": total},
        "charges": [{"bucket_id": "bkt_1", "amount": {"amount": total, "unit": "token"}}],
        "attempts": [{"supplier": "embedded", "cost": cny(cost)}],
    }


def bucket(spent: int, recognised: str) -> dict[str, Any]:
    return {
        "bucket_id": "bkt_1",
        "unit": "token",
        "granted": 10_000_000,
        "spent": spent,
        "expired": 0,
        "withdrawn": 0,
        "net": cny("9.339622642"),
        "recognised": cny(recognised),
    }


TRUE = Facts(
    offer={"price": cny("9.9")},
    order={"price": cny("9.9")},
    bucket_before=bucket(0, "0"),
    bucket_after=bucket(150, "0.000140094"),
    calls=(call("req_1", 30, 70), call("req_2", 20, 30)),
    records=(record("req_1", 30, 0, 70, "0.000051"), record("req_2", 20, 8, 30, "0.000024")),
    bill={"total": cny("9.9"), "net": cny("9.339622642"), "tax": cny("0.560377358")},
    supplier={"payable": cny("0.000075")},
    margin={"revenue": cny("0.000140094"), "cost": cny("0.000075"), "margin": cny("0.000065094")},
)


def failing(facts: Facts) -> set[str]:
    return {check.name for check in adding_up.findings(facts) if not check.ok}


def test_the_true_story_adds_up() -> None:
    assert failing(TRUE) == set()
    assert adding_up.charged(TRUE.records) == 150
    assert adding_up.by_class(TRUE.records) == {
        "input": 42,
        "cached_input": 8,
        "cache_write": 0,
        "output": 100,
        "reasoning": 0,
        "total": 150,
    }


WRONG: list[tuple[str, Any]] = [
    ("order", {"price": cny("9.8")}),
    ("bucket_before", bucket(1, "0")),
    ("bucket_after", bucket(151, "0.000140094")),
    ("calls", (call("req_1", 30, 71), call("req_2", 20, 30))),
    ("calls", (call("req_1", 30, 70), call("req_3", 20, 30))),
    ("calls", (call("req_1", 50, 100),)),
    ("records", (record("req_1", 30, 0, 70, "0.000051"),)),
    ("records", (record("req_1", 30, 0, 70, "0.000051"), record("req_2", 20, 8, 30, "0.000025"))),
    ("bill", {"total": cny("9.9"), "net": cny("9.34"), "tax": cny("0.560377358")}),
    ("bill", {"total": cny("0"), "net": cny("9.339622642"), "tax": cny("0.560377358")}),
    ("supplier", {"payable": cny("0.000074999")}),
    ("margin", {"revenue": cny("0.000140095"), "cost": cny("0.000075"), "margin": cny("0.000065095")}),
    ("margin", {"revenue": cny("0.000140094"), "cost": cny("0.000075"), "margin": cny("-0.000065094")}),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_figure_is_found(name: str, value: Any) -> None:
    assert failing(msgspec.structs.replace(TRUE, **{name: value}))
