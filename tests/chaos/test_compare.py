"""The comparison, in tables: one answer, one record, and what must be said of them."""

import pytest

from tokenworks.chaos.answers import Answer, read
from tokenworks.chaos.compare import Limits, compare
from tokenworks.chaos.endpoint import answer_of
from tokenworks.chaos.posted import Posted
from tokenworks.chaos.questions import Question, Script, drawn, script_of

LIMITS = Limits(accounts=["acc-0", "acc-1"], checkpoint=64)
WHOLE = Question(0, False, False, 100, Script(30, 1, 0))
STREAM = Question(0, True, False, 500, Script(300, 10, 0))
COMPLETE = Answer(WHOLE, "complete", "req-1", 200, usage=(20, 30), charged=50)


def record(output: int, charged: int, request_id: str = "req-1", account: str = "acc-0", unproven: int = 0) -> Posted:
    return Posted(request_id, account, "finished", "reported", 20, output, charged, unproven)


@pytest.mark.parametrize(
    ("answer", "records", "double", "violations"),
    [
        (COMPLETE, [record(30, 50)], 0, []),
        (COMPLETE, [], 0, ["answered with 50 tokens, and not posted"]),
        (COMPLETE, [record(30, 50), record(30, 50)], 1, ["posted more than once"]),
        (COMPLETE, [record(31, 51)], 1, ["its answer said 50 charged", "counted 50 tokens, charged 51"]),
        (COMPLETE, [record(29, 49)], 0, ["its answer said 50 charged", "counted 50 tokens, posted 49"]),
        (COMPLETE, [record(30, 0, unproven=50)], 0, ["its answer said 50 charged", "counted 50 tokens, posted 50"]),
        (COMPLETE, [record(30, 50, account="acc-1")], 0, ["asked by acc-0, posted to acc-1"]),
        (COMPLETE, [record(30, 50), record(1, 21, "req-9")], 0, ["posted, and no customer has asked for it"]),
        (Answer(STREAM, "complete", "req-1", 200, deltas=300), [record(300, 320)], 0, []),
        (Answer(STREAM, "complete", "req-1", 200, deltas=300), [record(301, 321)], 1, ["counted 320 tokens, charged"]),
        # Ended early for want of balance: the customer knows the deltas, and not how the prompt was counted.
        (Answer(STREAM, "complete", "req-1", 200, deltas=29), [record(29, 49)], 0, []),
        (Answer(STREAM, "complete", "req-1", 200, deltas=29), [record(30, 50)], 1, ["counted 49 tokens, charged 50"]),
        (Answer(WHOLE, "refused", "req-1", 402, "balance_used_up"), [], 0, []),
        (Answer(WHOLE, "refused", "req-1", 502, "endpoint_broken"), [record(0, 0)], 0, []),
        (Answer(WHOLE, "refused", "req-1", 502, "endpoint_broken"), [record(0, 1)], 1, ["refused with 502"]),
        (Answer(STREAM, "cut", "req-1", 200, deltas=100), [record(64, 84)], 0, []),
        (Answer(STREAM, "cut", "req-1", 200, deltas=100), [record(164, 184)], 0, []),
        (Answer(STREAM, "cut", "req-1", 200, deltas=100), [record(165, 185)], 1, ["cut after 100 deltas, charged 185"]),
        (Answer(STREAM, "cut", "req-1", 200, deltas=200), [record(64, 84)], 0, ["more lost than a checkpoint"]),
        (Answer(STREAM, "cut", "req-1", 200, deltas=100), [], 0, ["its answer had begun, and it was not posted"]),
        (Answer(WHOLE, "cut", "req-1", 200), [record(30, 50)], 0, []),
        (Answer(WHOLE, "unheard"), [], 0, []),
        (Answer(WHOLE, "unheard"), [record(30, 50)], 0, []),
        (Answer(WHOLE, "unheard"), [record(30, 5_000)], 1, ["more than the request could cost"]),
        (Answer(WHOLE, "unheard"), [record(30, 50), record(3, 23, "req-2")], 0, ["no customer has asked for it"]),
        (Answer(WHOLE, "unheard"), [record(30, 50, account="acc-1")], 0, ["no customer has asked for it"]),
    ],
)
def test_what_is_said_of_one_answer(answer: Answer, records: list[Posted], double: int, violations: list[str]) -> None:
    found = compare([answer], records, LIMITS)
    assert found.double_charged == double
    assert len(found.violations) == len(violations), found.violations
    for violation, part in zip(found.violations, violations, strict=True):
        assert part in violation.why


def test_tokens_are_added_up_by_how_the_answer_ended() -> None:
    seen = [COMPLETE, Answer(STREAM, "cut", "req-2", 200, deltas=100), Answer(WHOLE, "unheard")]
    posted = [record(30, 50), record(64, 84, "req-2"), record(30, 50, "req-3")]
    found = compare(seen, posted, LIMITS)
    assert (found.tokens_clients_counted, found.tokens_posted) == (50, 50)
    assert (found.tokens_clients_saw_cut, found.tokens_posted_cut, found.tokens_given_away) == (100, 84, 36)
    assert found.tokens_posted_unheard == 50
    assert found.ended == {"complete": 1, "cut": 1, "unheard": 1}


@pytest.mark.parametrize("question", [WHOLE, STREAM], ids=["whole", "stream"])
def test_the_endpoint_and_the_customer_mean_the_same(question: Question) -> None:
    body = question.body()
    script = script_of(body)
    assert script == question.script
    answer = read(question, 200, {b"x-request-id": b"req-1"}, answer_of(body), is_whole=True)
    assert answer.ended == "complete"
    assert answer.usage == (20, question.output_most)
    assert answer.deltas == (question.output_most if question.streamed else 0)


@pytest.mark.parametrize("cut_at", [0, 1, 1_000, 5_000])
def test_a_stream_that_breaks_off_is_no_complete_answer(cut_at: int) -> None:
    body = answer_of(STREAM.body())[:cut_at]
    answer = read(STREAM, 200, {b"x-request-id": b"req-1"}, body, is_whole=False)
    assert answer.ended == "cut"
    assert answer.deltas == body.count(b'"content":"w "},"finish_reason":null}]}\n\n')


def test_an_error_within_a_stream_is_no_complete_answer() -> None:
    error = b'data: {"error":{"message":"gone","type":"server_error","param":null,"code":"endpoint_broken"}}\n\n'
    answer = read(STREAM, 200, {}, error, is_whole=True)
    assert (answer.ended, answer.code) == ("cut", "endpoint_broken")


def test_a_refusal_has_its_code() -> None:
    answer = read(WHOLE, 402, {}, b'{"error":{"message":"no","code":"balance_used_up"}}', is_whole=True)
    assert (answer.ended, answer.status, answer.code) == ("refused", 402, "balance_used_up")


def test_the_same_seed_asks_the_same_questions_of_all_kinds() -> None:
    questions = list(drawn(1, 4_000, keys=30, steady=10))
    assert questions == list(drawn(1, 4_000, keys=30, steady=10))
    assert questions != list(drawn(2, 4_000, keys=30, steady=10))
    assert {question.account for question in questions} == set(range(30))
    assert 0.4 < sum(question.streamed for question in questions) / 4_000 < 0.7
    assert any(question.output_most < question.script.tokens for question in questions)
    assert any(question.script.tokens > 128 for question in questions)
