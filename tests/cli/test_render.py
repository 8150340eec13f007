"""Records as tables: the text of each kind of value, and what a pipe gets."""

from typing import Any

import pytest

from tokenworks.cli import render

TEXTS: list[tuple[Any, str]] = [
    (None, "–"),
    ("", "–"),
    ([], "–"),
    ({}, "–"),
    (True, "yes"),
    (False, "no"),
    (0, "0"),
    (10_000_000, "10,000,000"),
    ("2026-11-22T00:50:03.123Z", "2026-11-22 00:50:03"),
    ("not-a-time-but-24-charsZ", "not-a-time-but-24-charsZ"),
    (["a", "b"], "a, b"),
    ({"amount": "9.9", "unit": "CNY"}, "9.90 CNY"),
    ({"amount": "9.339622642", "unit": "CNY"}, "9.339622642 CNY"),
    ({"amount": "1234567", "unit": "CNY"}, "1,234,567.00 CNY"),
    ({"amount": "-0.000001", "unit": "CNY"}, "-0.000001 CNY"),
    ({"amount": 10_000_000, "unit": "token"}, "10,000,000 token"),
    ({"input": 27, "cached_input": 0, "output": 40}, "input 27 · output 40"),
]


@pytest.mark.parametrize(("value", "text"), TEXTS)
def test_text_of_a_value(value: Any, text: str) -> None:
    assert render.text_of(value) == text


def test_a_table_in_a_pipe_keeps_ids_whole_and_puts_quantities_to_the_right(capsys: pytest.CaptureFixture[str]) -> None:
    entries = [
        {"id": "bkt_06f1v3" + "x" * 40, "left": 9, "price": {"amount": "9.9", "unit": "CNY"}, "to": {"model": "m"}},
        {"id": "bkt_2", "left": 10_000_000, "price": None, "to": {}},
    ]
    render.table("buckets", entries, {"id": "id", "left": "left", "price": "price", "model": "to.model"})
    heading, rule, first, second = capsys.readouterr().out.splitlines()
    assert heading.split() == ["id", "left", "price", "model"]
    assert set(rule.strip()) == {"─"}
    assert first.split() == ["bkt_06f1v3" + "x" * 40, "9", "9.90", "CNY", "m"]
    assert second.split() == ["bkt_2", "10,000,000", "–", "–"]
    assert first.index(" 9 ") + 2 == second.index("10,000,000") + len("10,000,000")


def test_a_column_can_be_made_of_several_fields(capsys: pytest.CaptureFixture[str]) -> None:
    render.table("sums", [{"a": 1, "b": 2}], {"sum": lambda entry: entry["a"] + entry["b"]})
    assert capsys.readouterr().out.splitlines()[-1].split() == ["3"]


def test_an_empty_list_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    render.table("legal-entities", [], {"id": "id"})
    assert capsys.readouterr().out == "No legal entities.\n"


def test_a_record_shows_its_lists_as_tables(capsys: pytest.CaptureFixture[str]) -> None:
    line = {"name": "package", "total": {"amount": "9.9", "unit": "CNY"}}
    render.record({"id": "bil_1", "valid_to": "2026-11-22T00:50:03.123Z", "lines": [line], "none": []})
    text = capsys.readouterr().out
    assert "valid to  2026-11-22 00:50:03" in text
    assert text.index("lines") < text.index("package")
    assert "9.90 CNY" in text
