"""How an attempt ends: exactly one terminal event, the exit code of the cause, and failure.json when it failed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from peft_trainer import checkpoints
from peft_trainer import run as story
from peft_trainer.attempt import run_attempt
from training_contract.documents import read_document
from training_contract.events import Ending, EventReader, Finished, Started, Warned
from training_contract.exit_codes import ExitCode
from training_contract.failure import FailureReport
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.result import TrainingResult

from .conftest import write_rows
from .tiny_models import labelled_rows

MakeRun = Callable[..., RunDirectory]

pytestmark = pytest.mark.usefixtures("in_process")


def attempt_of(run: RunDirectory) -> tuple[ExitCode, AttemptDirectory]:
    attempt = run.open_attempt()
    return run_attempt(run, attempt), attempt


def check_failed(attempt: AttemptDirectory, exit_code: ExitCode, ending: Ending = Ending.FAILED) -> FailureReport:
    """Check the evidence of a failed attempt and return its report."""
    events = [read.event for read in EventReader(attempt.events_file).read_new()]
    assert isinstance(events[0], Started)
    assert [event for event in events if isinstance(event, Finished)] == [
        Finished(ending=ending, exit_code=int(exit_code))
    ]
    assert isinstance(events[-1], Finished)
    assert not attempt.result_file.exists()
    assert not attempt.adapter_directory.exists()
    assert not list(attempt.root.glob(".tmp-*"))
    report = read_document(attempt.failure_file, FailureReport)
    assert (report.exit_code, report.failure_code) == (int(exit_code), exit_code.failure_code)
    assert report.message
    assert report.remedy
    assert report.exceptions
    assert report.memory["peak_memory_bytes"] > 0
    return report


@pytest.mark.parametrize(
    ("changes", "exit_code", "message", "phase"),
    [
        pytest.param(
            {"model": "/no/such/model"}, ExitCode.MODEL_NOT_FOUND, "/no/such/model", "loading_model", id="dir"
        ),
        pytest.param({"model": "someone/none"}, ExitCode.MODEL_NOT_CACHED, "someone/none", "loading_model", id="hub"),
        pytest.param(
            {"data": {"digest": "sha256:00"}}, ExitCode.DATA_INVALID, "sha256:00", "loading_data", id="digest"
        ),
        pytest.param(
            {"training": {"max_length": 3}}, ExitCode.DATA_EMPTY, "3 tokens", "loading_model", id="all-rows-too-long"
        ),
        pytest.param(
            {"peft_type": "HYPNOSIS"},
            ExitCode.ADAPTER_SETTINGS_INVALID,
            "HYPNOSIS",
            "loading_model",
            id="unknown-peft-type",
        ),
        pytest.param(
            {"peft_settings": {"rank": 8}},
            ExitCode.ADAPTER_SETTINGS_INVALID,
            "rank",
            "loading_model",
            id="unknown-setting",
        ),
        pytest.param(
            {"peft_settings": {"r": 0}}, ExitCode.ADAPTER_SETTINGS_INVALID, "`r`", "training", id="refused-by-peft"
        ),
        pytest.param(
            {"training": {"learning_rate": 0.0, "lr_scheduler_type": "stairs"}},
            ExitCode.TRAINING_SETTINGS_INVALID,
            "lr_scheduler_type",
            "starting",
            id="training-settings",
        ),
        pytest.param({"limits": {"gpu": "required"}}, ExitCode.GPU_UNAVAILABLE, "GPU", "starting", id="no-gpu"),
        pytest.param(
            {"training": {"learning_rate": 1e30, "max_grad_norm": 0.0, "warmup_ratio": 0.0}},
            ExitCode.TRAINING_DIVERGED,
            "diverged",
            "training",
            id="diverged",
        ),
    ],
)
def test_a_failure_has_the_code_of_its_cause(  # noqa: PLR0917  # one argument a column of the table
    make_run: MakeRun,
    tiny_causal: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    exit_code: ExitCode,
    message: str,
    phase: str,
) -> None:
    if changes.get("limits"):
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # also where there is one
    run = make_run(**{"model": tiny_causal, **changes})
    ended_with, attempt = attempt_of(run)
    assert ended_with is exit_code
    report = check_failed(attempt, exit_code)
    assert message in report.message
    assert report.phase == phase


@pytest.mark.parametrize("content", [None, b"{", b"[]", b'{"contract_version": "99.0"}'])
def test_a_spec_that_cannot_be_used_is_said_so(make_run: MakeRun, tiny_causal: Path, content: bytes | None) -> None:
    run = make_run(tiny_causal)
    run.spec_file.unlink()
    if content is not None:
        run.spec_file.write_bytes(content)
    ended_with, attempt = attempt_of(run)
    assert ended_with is ExitCode.SPEC_INVALID
    check_failed(attempt, ExitCode.SPEC_INVALID)


def test_a_training_without_effect_is_no_success(make_run: MakeRun, tiny_causal: Path) -> None:
    run = make_run(tiny_causal, training={"learning_rate": 1e-60, "max_steps": 2})
    ended_with, attempt = attempt_of(run)
    assert ended_with is ExitCode.ADAPTER_UNUSABLE
    assert "unchanged" in check_failed(attempt, ExitCode.ADAPTER_UNUSABLE).message


def test_rows_that_are_left_out_are_told(make_run: MakeRun, tiny_causal: Path) -> None:
    rows = labelled_rows()
    rows[0]["completion"] *= 30
    run = make_run(tiny_causal, rows=rows, training={"max_steps": 2})
    ended_with, attempt = attempt_of(run)
    assert ended_with is ExitCode.SUCCESS
    warned = [read.event for read in EventReader(attempt.events_file).read_new() if isinstance(read.event, Warned)]
    assert [event.code for event in warned] == ["ROWS_TOO_LONG"]
    metrics = read_document(attempt.result_file, TrainingResult).metrics
    assert (metrics.too_long_row_count, metrics.trained_row_count) == (1, 47)


def test_a_full_disk_in_the_middle_is_told_and_leaves_no_adapter(
    make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(*_: Any, **__: Any) -> None:
        with Path("/dev/full").open("wb", buffering=0) as stream:
            stream.write(b"x")

    monkeypatch.setattr(checkpoints, "flush_tree", fill_the_disk)
    ended_with, attempt = attempt_of(make_run(tiny_causal, training={"max_steps": 2}))
    assert ended_with is ExitCode.DISK_FULL
    assert check_failed(attempt, ExitCode.DISK_FULL).phase == "training"


def test_events_that_cannot_be_written_do_not_stop_a_training(make_run: MakeRun, tiny_causal: Path) -> None:
    run = make_run(tiny_causal, training={"max_steps": 2})
    attempt = run.open_attempt()
    attempt.events_file.symlink_to("/dev/full")
    assert run_attempt(run, attempt) is ExitCode.SUCCESS
    assert read_document(attempt.result_file, TrainingResult).metrics.global_step == 2


def test_an_events_file_that_cannot_be_opened_ends_the_attempt(make_run: MakeRun, tiny_causal: Path) -> None:
    run = make_run(tiny_causal)
    attempt = run.attempt(1)
    assert run_attempt(run, attempt) is not ExitCode.SUCCESS


def test_a_stop_outside_the_training_ends_at_once(
    make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "load_base_model", lambda *_: signal.raise_signal(signal.SIGTERM))
    ended_with, attempt = attempt_of(make_run(tiny_causal))
    assert ended_with is ExitCode.STOPPED
    assert check_failed(attempt, ExitCode.STOPPED, Ending.STOPPED).phase == "loading_model"


def test_a_stop_while_the_adapter_is_saved_comes_too_late(
    make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = story.save_adapter

    def save_and_be_stopped(*arguments: Any, **settings: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return save(*arguments, **settings)

    monkeypatch.setattr(story, "save_adapter", save_and_be_stopped)
    ended_with, attempt = attempt_of(make_run(tiny_causal, training={"max_steps": 2}))
    assert ended_with is ExitCode.SUCCESS
    assert attempt.result_file.exists()


def test_a_missing_package_is_named(make_run: MakeRun, tiny_causal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft_trainer.run", None)
    ended_with, attempt = attempt_of(make_run(tiny_causal))
    assert ended_with is ExitCode.DEPENDENCY_MISSING
    assert "peft_trainer.run" in check_failed(attempt, ExitCode.DEPENDENCY_MISSING).message


def test_rows_changed_after_the_spec_was_written_are_refused(make_run: MakeRun, tiny_causal: Path) -> None:
    run = make_run(tiny_causal)
    write_rows(run, labelled_rows()[1:])
    assert attempt_of(run)[0] is ExitCode.DATA_INVALID
