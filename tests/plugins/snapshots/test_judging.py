"""Which rows can be learned from."""

from __future__ import annotations

import json
from typing import Any

import pytest

from peft_retraining.data_watch.labelled_row import LabelledRow
from peft_retraining.settings import CompletionFormat
from peft_retraining.snapshots.judging import MAX_TEXT_CHARACTERS, Conversation, RefusalReason, RowRefused, judge_row

GOOD = json.dumps([{"description": "Turn on the lamp", "confidence": 0.9}])


def row(
    prompt: Any = "light please", completion: Any = GOOD, created_at: str | None = "2026-11-10T08:00:00+00:00"
) -> LabelledRow:
    return LabelledRow(source_id="7", created_at=created_at, prompt=prompt, completion=completion)


def suggestions(*pairs: tuple[Any, str]) -> str:
    return json.dumps([{"description": text, "confidence": confidence} for confidence, text in pairs])


def test_the_suggestion_with_the_highest_confidence_is_the_answer() -> None:
    judged = judge_row(
        row(completion=suggestions((0.2, "worse"), (0.8, " best "), (0.5, "middle"))),
        CompletionFormat.ASK_AI_SUGGESTIONS,
    )

    assert judged == Conversation(
        source_id="7", created_at="2026-11-10T08:00:00+00:00", prompt="light please", completion="best"
    )


def test_of_equal_suggestions_the_first_is_the_answer() -> None:
    judged = judge_row(
        row(completion=suggestions((0.5, "first"), (0.5, "second"))), CompletionFormat.ASK_AI_SUGGESTIONS
    )

    assert judged.completion == "first"


@pytest.mark.parametrize("confidence", ["high", float("nan"), float("inf"), -1, 2, None, True])
def test_a_confidence_that_is_none_never_wins(confidence: Any) -> None:
    judged = judge_row(
        row(completion=suggestions((confidence, "unrated"), (0.1, "rated"))), CompletionFormat.ASK_AI_SUGGESTIONS
    )

    assert judged.completion == "rated"


def test_plain_text_is_the_answer_as_it_is() -> None:
    assert judge_row(row(completion="an answer"), CompletionFormat.TEXT).completion == "an answer"


def test_a_parsed_json_value_is_taken_as_it_is() -> None:
    parsed = [{"description": "d", "confidence": 1}]

    assert judge_row(row(completion=parsed), CompletionFormat.ASK_AI_SUGGESTIONS).completion == "d"


def test_unusual_but_valid_text_is_kept() -> None:
    prompt = "مرحبا \u2028 👩‍👩‍👧 <script>"

    assert judge_row(row(prompt=prompt), CompletionFormat.ASK_AI_SUGGESTIONS).prompt == prompt


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (row(created_at=None), RefusalReason.CREATED_AT_UNREADABLE),
        (row(prompt=None), RefusalReason.PROMPT_MISSING),
        (row(prompt="  \n"), RefusalReason.PROMPT_MISSING),
        (row(prompt=12), RefusalReason.NOT_TEXT),
        (row(prompt=b"bytes"), RefusalReason.NOT_TEXT),
        (row(prompt="a\x00b"), RefusalReason.NUL_CHARACTER),
        (row(prompt="a\udcffb"), RefusalReason.INVALID_UTF8),
        (row(prompt="x" * (MAX_TEXT_CHARACTERS + 1)), RefusalReason.TOO_LARGE),
        (row(completion=None), RefusalReason.COMPLETION_MISSING),
        (row(completion='{"a":'), RefusalReason.SUGGESTIONS_NOT_JSON),
        (row(completion="[" * 90_000), RefusalReason.SUGGESTIONS_NOT_JSON),
        (row(completion='{"description": "d"}'), RefusalReason.SUGGESTIONS_NOT_A_LIST),
        (row(completion="[]"), RefusalReason.SUGGESTIONS_EMPTY),
        (row(completion='[{"description": "d"}]'), RefusalReason.SUGGESTIONS_WITHOUT_CONFIDENCE),
        (row(completion='["d"]'), RefusalReason.SUGGESTIONS_WITHOUT_CONFIDENCE),
        (row(completion='[{"description": "d", "confidence": 1e400}]'), RefusalReason.SUGGESTIONS_WITHOUT_CONFIDENCE),
        (row(completion='[{"confidence": 1}]'), RefusalReason.COMPLETION_MISSING),
        (row(completion='[{"description": " ", "confidence": 1}]'), RefusalReason.COMPLETION_MISSING),
        (row(completion='[{"description": 5, "confidence": 1}]'), RefusalReason.NOT_TEXT),
        (row(completion='[{"description": "\\u0000", "confidence": 1}]'), RefusalReason.NUL_CHARACTER),
        (row(completion='[{"description": "\\ud800", "confidence": 1}]'), RefusalReason.INVALID_UTF8),
    ],
    ids=lambda value: value.value if isinstance(value, RefusalReason) else "",
)
def test_an_unusable_row_is_refused_with_its_reason(bad: LabelledRow, reason: RefusalReason) -> None:
    with pytest.raises(RowRefused) as caught:
        judge_row(bad, CompletionFormat.ASK_AI_SUGGESTIONS)

    assert caught.value.reason is reason
