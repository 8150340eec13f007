"""Every refusal has a status, a type, and a line in the documents."""

from pathlib import Path

from tokenworks.core.refusals import Code, Refusal
from tokenworks.dialects.answers import TABLE, refusal_body

DOCUMENT = Path(__file__).parents[2] / "docs" / "refusals.md"


def test_every_code_has_a_status_and_a_type() -> None:
    assert set(TABLE) == set(Code)
    assert all(400 <= status < 600 for status, _ in TABLE.values())


def test_every_code_is_documented_with_its_status_and_type() -> None:
    text = DOCUMENT.read_text()
    missing = [
        code.value for code, (status, kind) in TABLE.items() if f"| `{code.value}` | {status} | `{kind}` |" not in text
    ]
    assert missing == []


def test_the_shape_is_openai_s() -> None:
    refusal = Refusal(Code.INVALID_VALUE, 'Say "n".', "n")
    assert refusal_body(refusal) == (
        b'{"error":{"message":"Say \\"n\\".","type":"invalid_request_error","param":"n","code":"invalid_value"}}'
    )
