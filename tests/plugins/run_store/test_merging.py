from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from peft_retraining.errors import FailureClass
from peft_retraining.run_store.merging import Row, RunWord, merge_attempt, merge_run, word_of
from peft_retraining.run_store.records import AttemptFacts, Failure, OutputExcerpt, Progress, RunFacts
from peft_retraining.run_store.states import RunState

QUEUED, RUNNING, SUCCEEDED, FAILED, SKIPPED, CANCELLED = RunState


def at(minute: float) -> datetime:
    return datetime(2026, 11, 12, 2, 0, tzinfo=UTC) + timedelta(minutes=minute)


def failure(code: str) -> Failure:
    return Failure(failure_code=code, failure_reason=f"{code}!", failure_class=FailureClass.INFRA, retryable=True)


def attempt(*observations: tuple[float, RunState, dict[str, Any]]) -> Row:
    row: Row | None = None
    for minute, state, facts in observations:
        row = merge_attempt(row, state=state, facts=AttemptFacts(**facts), observed_at=at(minute))
    assert row is not None
    return row


@pytest.mark.parametrize(
    ("observed", "final"),
    [
        pytest.param([(1, QUEUED), (2, RUNNING)], RUNNING, id="queued then running"),
        pytest.param([(2, RUNNING), (1, QUEUED)], RUNNING, id="queued arrives late"),
        pytest.param([(1, RUNNING), (2, QUEUED)], RUNNING, id="never back to queued"),
        pytest.param([(1, QUEUED), (2, SKIPPED)], SKIPPED, id="queued then skipped"),
        pytest.param([(3, FAILED), (2, RUNNING)], FAILED, id="an old heartbeat arrives after the end"),
        pytest.param([(3, FAILED), (4, RUNNING)], FAILED, id="a heartbeat observed after the end"),
        pytest.param([(3, SUCCEEDED), (4, FAILED)], SUCCEEDED, id="second end: failed after succeeded"),
        pytest.param([(3, FAILED), (4, SUCCEEDED)], FAILED, id="second end: succeeded after failed"),
        pytest.param([(3, CANCELLED), (4, FAILED)], CANCELLED, id="second end: callback after mark failed"),
        pytest.param([(3, FAILED), (3, FAILED)], FAILED, id="the same end twice"),
        pytest.param([(4, FAILED), (3, SUCCEEDED)], SUCCEEDED, id="word of an earlier end is delivered late"),
    ],
)
def test_the_state_of_an_attempt_goes_forward_and_its_first_end_stays(
    observed: list[tuple[float, RunState]], final: RunState
) -> None:
    assert attempt(*((minute, state, {}) for minute, state in observed))["state"] is final


def test_a_later_observer_fills_what_was_empty_and_changes_no_cause() -> None:
    row = attempt(
        (1, RUNNING, {"container_id": "c1"}),
        (2, FAILED, {"failure": failure("gpu_out_of_memory")}),
        (3, FAILED, {"failure": failure("worker_lost"), "exit_code": 61, "log_location": "/logs/1"}),
        (4, FAILED, {"exit_code": 137, "oom_killed": True}),
    )
    assert (row["failure_code"], row["failure_reason"]) == ("gpu_out_of_memory", "gpu_out_of_memory!")
    assert (row["exit_code"], row["oom_killed"], row["container_id"]) == (61, True, "c1")
    assert row["log_location"] == "/logs/1"


def test_a_cause_is_stored_whole_and_never_mixed_from_two() -> None:
    with_remedy = Failure(
        failure_code="b", failure_reason="b", failure_class=FailureClass.USER, retryable=False, remedy="do this"
    )
    row = attempt((1, FAILED, {"failure": failure("a")}), (2, FAILED, {"failure": with_remedy}))
    assert (row["failure_code"], row["remedy"], row["failure_class"]) == ("a", "", "infra")


def test_the_newest_progress_stays_also_when_it_arrives_first() -> None:
    late = {"phase": "training", "progress": Progress(progress_percentage=50.0, global_step=5)}
    early = {"phase": "loading_model", "progress": Progress(progress_percentage=10.0, estimated_remaining_seconds=9.0)}
    for order in ([(1, early), (2, late)], [(2, late), (1, early)]):
        row = attempt(*((minute, RUNNING, facts) for minute, facts in order))
        assert (row["phase"], row["progress_percentage"], row["global_step"]) == ("training", 50.0, 5)
        assert row["estimated_remaining_seconds"] is None


def test_facts_that_are_not_given_stay_untouched() -> None:
    row = attempt((1, RUNNING, {"runner": "docker", "process_id": 7}), (2, RUNNING, {"phase": "saving"}))
    assert (row["runner"], row["process_id"], row["phase"]) == ("docker", 7, "saving")


def test_false_and_zero_are_facts() -> None:
    row = attempt((1, FAILED, {"oom_killed": False, "exit_code": 0}), (2, FAILED, {"oom_killed": True, "exit_code": 1}))
    assert (row["oom_killed"], row["exit_code"]) == (False, 0)


def test_the_newest_excerpt_stays_since_output_only_grows() -> None:
    row = attempt(
        (2, FAILED, {"stderr": OutputExcerpt(head="all of it", total_bytes=9)}),
        (1, RUNNING, {"stderr": OutputExcerpt(head="all", total_bytes=3)}),
    )
    assert row["stderr"] == {"head": "all of it", "tail": "", "total_bytes": 9, "omitted_characters": 0}


def test_beginnings_stay_at_the_earliest_and_signs_of_life_at_the_latest_time() -> None:
    row = attempt(
        (5, RUNNING, {"started_at": at(2), "heartbeat_at": at(5)}),
        (6, FAILED, {"started_at": at(1), "heartbeat_at": at(4), "ended_at": at(6)}),
        (9, FAILED, {"ended_at": at(9)}),
    )
    assert (row["started_at"], row["heartbeat_at"], row["ended_at"]) == (at(1), at(5), at(6))
    assert (row["first_observed_at"], row["updated_at"]) == (at(5), at(9))


def test_merging_leaves_the_row_it_was_given_unchanged() -> None:
    held = attempt((1, RUNNING, {"phase": "training"}))
    before = {**held, "fact_times": dict(held["fact_times"])}
    merge_attempt(held, state=FAILED, facts=AttemptFacts(phase="saving"), observed_at=at(2))
    assert held == before


def test_of_what_is_said_of_a_run_the_newest_word_is_kept() -> None:
    row: Row | None = None
    for minute, state in ((3, SUCCEEDED), (1, QUEUED), (2, FAILED)):
        word = RunWord(state=state, state_at=at(minute), failure=failure("x") if state is FAILED else None)
        row = merge_run(row, facts=RunFacts(), word=word, observed_at=at(9))
    assert row is not None
    assert word_of(row) == RunWord(state=SUCCEEDED, state_at=at(3))


def test_a_naive_time_is_refused_where_it_comes_in() -> None:
    with pytest.raises(ValueError, match="no zone"):
        AttemptFacts(started_at=datetime(2026, 11, 12))


def test_a_time_of_another_zone_becomes_utc() -> None:
    from datetime import timezone

    local = datetime(2026, 11, 12, 3, 0, tzinfo=timezone(timedelta(hours=1)))
    assert AttemptFacts(started_at=local).started_at == at(0)
    assert AttemptFacts(started_at=local).started_at.utcoffset() == timedelta(0)  # type: ignore[union-attr]
