from __future__ import annotations

import pytest

from peft_retraining.errors import FailureClass
from peft_retraining.outcome.signatures import ResultState, SignaturesInvalid, built_in_signatures, read_signatures
from training_contract.exit_codes import ExitCode

ROW = """
[[signature]]
name = "out_of_coffee"
failure_class = "platform"
retryable = true
remedy = "Make some."
"""


@pytest.mark.parametrize(
    "code", [code for code in ExitCode if code is not ExitCode.SUCCESS], ids=lambda code: code.name
)
def test_every_exit_code_of_the_contract_has_a_row_of_its_name(code: ExitCode) -> None:
    rows = [row for row in built_in_signatures() if row.exit_codes == {int(code)} and not row.asks_for_a_line]

    assert [row.name for row in rows] == [code.failure_code]


@pytest.mark.parametrize("state", [state for state in ResultState if state is not ResultState.ACCEPTED])
def test_every_unusable_result_has_a_row(state: ResultState) -> None:
    assert any(row.results == {state} for row in built_in_signatures())


def test_every_row_says_what_to_do() -> None:
    for row in built_in_signatures():
        assert row.remedy.endswith(".")
        assert row.remedy[0].isupper()


def test_rows_of_one_name_agree_on_who_has_to_act() -> None:
    for name in {row.name for row in built_in_signatures()}:
        classes = {(row.failure_class, row.retryable) for row in built_in_signatures() if row.name == name}
        assert len(classes) == 1, name


def test_a_row_is_read() -> None:
    text = ROW + 'reason = "{line}"\nmatch = { exit_codes = [1, 2], oom_killed = "unknown", pattern = "coffee" }'

    (row,) = read_signatures(text)

    assert (row.name, row.failure_class, row.retryable) == ("out_of_coffee", FailureClass.PLATFORM, True)
    assert row.exit_codes == {1, 2}
    assert row.oom_killed == "unknown"
    assert row.pattern is not None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("x = ", "not TOML"),
        ("rows = 1", "rows is not known"),
        ("signature = 1", "row 1 is not a table"),
        (ROW, "match is missing"),
        (ROW + "match = {}", "match is missing"),
        (ROW + "match = 3", "match must be a table"),
        (ROW + "match = { exit_code = 3 }", r"match\.exit_code is not known; known: exception_types, exit_codes"),
        (ROW + "match = { exit_codes = 300 }", r"match\.exit_codes: must be whole numbers from 0 to 255"),
        (ROW + "match = { exit_codes = true }", r"match\.exit_codes: must be whole numbers"),
        (ROW + "match = { exit_codes = [] }", r"match\.exit_codes: must be whole numbers"),
        (ROW + 'match = { oom_killed = "maybe" }', r"match\.oom_killed: must be true or false"),
        (ROW + 'match = { pattern = "(" }', "not a regular expression"),
        (ROW + 'match = { phases = "sleeping" }', "'sleeping' is not a valid Phase"),
        (ROW + 'reason = "{colour}"\nmatch = { exit_codes = 3 }', r"\{colour\} is not known"),
        (ROW + 'reason = "{line!r}{line.text}"\nmatch = { exit_codes = 3 }', r"\{line\.text\} is not known"),
        (ROW + 'reason = "{"\nmatch = { exit_codes = 3 }', "reason: "),
        (ROW.replace("platform", "them") + "match = { exit_codes = 3 }", "'them' is not a valid FailureClass"),
        (ROW.replace('"out_of_coffee"', '"Out of coffee"') + "match = { exit_codes = 3 }", "not a failure code"),
        (ROW.replace("retryable = true", "") + "match = { exit_codes = 3 }", "retryable is missing"),
        (ROW.replace("true", '"yes"') + "match = { exit_codes = 3 }", "retryable: must be true or false"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_its_problem(text: str, problem: str) -> None:
    with pytest.raises(SignaturesInvalid, match=problem):
        read_signatures(text)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(SignaturesInvalid) as caught:
        read_signatures(ROW.replace("platform", "them") + ROW)

    assert len(caught.value.problems) == 3
