from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime

from peft_retraining.errors import FailureClass
from peft_retraining.identity import AttemptKey
from peft_retraining.run_store.presentation import attempt_as_dict, run_as_dict, run_as_text, runs_as_table
from peft_retraining.run_store.records import (
    AttemptFacts,
    Failure,
    OutputExcerpt,
    Progress,
    RunFacts,
    TrainingAttempt,
    TrainingRun,
)
from peft_retraining.run_store.states import RunState

AT = datetime(2026, 11, 12, 2, 0, tzinfo=UTC)
KEY = AttemptKey(dag_id="nightly", run_id="manual__1", task_id="train_adapter")
FAILURE = Failure(
    failure_code="gpu_out_of_memory",
    failure_reason="CUDA out of memory",
    failure_class=FailureClass.USER,
    retryable=False,
    remedy="Use a smaller batch.",
)
RUN = TrainingRun(
    training_run_id="0123456789abcdef",
    dag_id="nightly",
    run_id="manual__1",
    state=RunState.FAILED,
    first_observed_at=AT,
    updated_at=AT,
    facts=RunFacts(started_at=AT, train_row_count=90, base_heldout_loss=2.5, refused_row_counts={"empty": 1}),
    phase="training",
    progress_percentage=41.6,
    failure=FAILURE,
    failed_task_id="train_adapter",
)
ATTEMPT = TrainingAttempt(
    key=KEY,
    state=RunState.FAILED,
    updated_at=AT,
    facts=AttemptFacts(
        exit_code=61,
        failure=FAILURE,
        progress=Progress(progress_percentage=41.6, metrics={"loss": 0.5}),
        stderr=OutputExcerpt(head="first\nsecond", tail="last", total_bytes=1000, omitted_characters=984),
    ),
)


def test_a_run_becomes_json_with_its_facts_and_failure_laid_flat() -> None:
    body = json.loads(json.dumps(run_as_dict(RUN), allow_nan=False))
    assert body["training_run_id"] == "0123456789abcdef"
    assert (body["state"], body["failure_code"], body["failure_class"]) == ("failed", "gpu_out_of_memory", "user")
    assert (body["started_at"], body["train_row_count"]) == ("2026-11-12T02:00:00Z", 90)
    assert body["refused_row_counts"] == {"empty": 1}
    assert body["cursor"] == RUN.cursor
    assert "attempts" not in body


def test_what_is_unknown_is_null_and_every_key_is_always_there() -> None:
    bare = dataclasses.replace(RUN, facts=RunFacts(), failure=None)
    body = run_as_dict(bare)
    assert body.keys() == run_as_dict(RUN).keys()
    assert (body["train_row_count"], body["failure_code"], body["ended_at"]) == (None, None, None)

    unknown = dataclasses.replace(ATTEMPT, facts=AttemptFacts())
    assert attempt_as_dict(unknown).keys() == attempt_as_dict(ATTEMPT).keys()
    assert attempt_as_dict(unknown)["progress_percentage"] is None


def test_a_run_with_attempts_has_them_in_its_json() -> None:
    body = json.loads(json.dumps(run_as_dict(dataclasses.replace(RUN, attempts=(ATTEMPT,)))))
    (attempt,) = body["attempts"]
    assert (attempt["task_id"], attempt["try_number"], attempt["exit_code"]) == ("train_adapter", 1, 61)
    assert (attempt["training_run_id"], attempt["metrics"]) == (KEY.training_run_id, {"loss": 0.5})
    assert attempt["stderr"] == {
        "head": "first\nsecond",
        "tail": "last",
        "total_bytes": 1000,
        "omitted_characters": 984,
    }


def test_the_table_has_a_line_a_run_with_the_cause_last() -> None:
    running = dataclasses.replace(RUN, state=RunState.RUNNING, failure=None, phase=None, progress_percentage=None)
    header, failed, other = runs_as_table([RUN, running]).splitlines()
    assert header.split("  ")[0] == "RUN"
    assert failed.endswith("gpu_out_of_memory: CUDA out of memory")
    assert "training 42 %" in failed
    assert "2.5000 to -" in failed
    assert other.split()[3:5] == ["running", "-"]


def test_an_empty_list_says_so() -> None:
    assert runs_as_table([]) == "No training runs are recorded."


def test_the_text_of_a_run_shows_attempts_failures_and_output() -> None:
    lines = run_as_text(dataclasses.replace(RUN, attempts=(ATTEMPT,))).splitlines()
    assert "remedy: Use a smaller batch." in lines
    assert "ended_at: -" in lines
    assert "task train_adapter, try 1: failed" in lines
    assert lines[-5:] == [
        "  stderr (1000 bytes):",
        "    | first",
        "    | second",
        "    [984 characters omitted]",
        "    | last",
    ]


def test_nothing_that_a_terminal_would_obey_is_sent_to_it() -> None:
    hostile = "\x1b]0;title\x07\x1b[31mred\r\x9b\u202eevil\u2028line"
    failure = dataclasses.replace(FAILURE, failure_reason=hostile, remedy=hostile + "\nforged: line")
    facts = AttemptFacts(stdout=OutputExcerpt(head=hostile), phase=hostile)
    run = dataclasses.replace(
        RUN, run_id=hostile, failure=failure, attempts=(dataclasses.replace(ATTEMPT, facts=facts),)
    )
    for shown in (runs_as_table([run]), run_as_text(run)):
        assert not set(shown) & set("\x1b\x07\r\x9b\u202e\u2028")
        assert "\\x1b[31mred" in shown
    assert "forged: line" not in run_as_text(run).splitlines()
