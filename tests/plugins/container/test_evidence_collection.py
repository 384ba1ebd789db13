from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

import pytest

from peft_retraining.container.evidence_collection import collect_evidence
from peft_retraining.container.runner import RunnerReport
from peft_retraining.outcome.evidence import Evidence
from peft_retraining.outcome.verdict import judge
from training_contract.documents import write_document
from training_contract.events import Ending, EventWriter, Finished, Phase, PhaseStarted, Progress
from training_contract.failure import ExceptionEntry, FailureReport
from training_contract.locations import AttemptDirectory
from training_contract.process_exit import ProcessExit
from training_contract.result import FileEntry, TrainingMetrics, TrainingResult

WEIGHTS = b"weights"
RESULT = TrainingResult(
    training_run_id="run",
    peft_type="LORA",
    base_model_name_or_path="model",
    data_digest="sha256:0",
    adapter_files={
        "weights.safetensors": FileEntry(sha256=hashlib.sha256(WEIGHTS).hexdigest(), size_bytes=len(WEIGHTS))
    },
    metrics=TrainingMetrics(
        base_heldout_loss=3.0,
        adapter_heldout_loss=2.0,
        train_loss=2.5,
        global_step=10,
        trained_row_count=8,
        trained_token_count=100,
        heldout_row_count=2,
        too_long_row_count=0,
        trainable_parameter_count=64,
        train_seconds=1.5,
        peak_memory_bytes=1,
    ),
    finished_at="2026-11-23T02:00:00+00:00",
)
EXIT = ProcessExit(exit_code=0, started_at="2026-11-23T02:00:00+00:00", ended_at="2026-11-23T02:00:01+00:00")


@pytest.fixture
def attempt(tmp_path: Path) -> AttemptDirectory:
    attempt = AttemptDirectory(tmp_path / "attempt-1", 1)
    attempt.adapter_directory.mkdir(parents=True)
    (attempt.adapter_directory / "weights.safetensors").write_bytes(WEIGHTS)
    return attempt


def test_a_whole_attempt_is_read(attempt: AttemptDirectory) -> None:
    write_document(attempt.result_file, RESULT)
    write_document(attempt.process_exit_file, replace(EXIT, oom_kill_count=0, stdout_bytes=4, stderr_bytes=4))
    attempt.stdout_file.write_bytes(b"out\n")
    attempt.stderr_file.write_bytes(b"err\n")
    writer = EventWriter(attempt.events_file)
    for event in (
        PhaseStarted(phase=Phase.TRAINING),
        Progress(phase=Phase.SAVING, progress_percentage=99.0),
        Finished(ending=Ending.SUCCEEDED),
    ):
        writer.write(event)
    writer.close()

    evidence = collect_evidence(attempt, exit_code=0)

    assert (evidence.exit_code, evidence.signal, evidence.oom_killed, evidence.stop_requested) == (
        0,
        None,
        False,
        False,
    )
    assert (evidence.last_phase, evidence.terminal) == (Phase.SAVING, Finished(ending=Ending.SUCCEEDED))
    assert (evidence.result, evidence.result_problem, evidence.adapter_problems) == (RESULT, "", ())
    assert (evidence.stdout.head, evidence.stdout_end) == ("out\n", "out\n")
    assert (evidence.stderr.head, evidence.stderr_end) == ("err\n", "err\n")


def test_a_directory_that_is_gone_is_no_evidence_and_no_error(tmp_path: Path) -> None:
    assert collect_evidence(AttemptDirectory(tmp_path / "gone", 1)) == Evidence(exit_code=None)


@pytest.mark.parametrize(
    ("runner_code", "record", "expected"),
    [
        pytest.param(137, None, (137, 9), id="only the runner saw it"),
        pytest.param(1, None, (1, None), id="only the runner saw it, no signal"),
        pytest.param(0, replace(EXIT, exit_code=139, signal=11), (139, 11), id="the parent's record goes first"),
        pytest.param(None, replace(EXIT, exit_code=20), (20, None), id="only the parent saw it"),
    ],
)
def test_how_it_ended(
    attempt: AttemptDirectory, runner_code: int | None, record: ProcessExit | None, expected: tuple[int, int | None]
) -> None:
    if record:
        write_document(attempt.process_exit_file, record)

    evidence = collect_evidence(attempt, exit_code=runner_code)

    assert (evidence.exit_code, evidence.signal) == expected


@pytest.mark.parametrize(
    ("counted", "engine", "expected"),
    [
        (None, None, None),
        (0, None, False),
        (2, None, True),
        (None, True, True),
        (None, False, False),
        (0, True, True),
        (2, False, True),
    ],
)
def test_whether_memory_was_the_cause(
    attempt: AttemptDirectory, counted: int | None, engine: bool | None, expected: bool | None
) -> None:
    write_document(attempt.process_exit_file, replace(EXIT, oom_kill_count=counted))

    assert collect_evidence(attempt, report=RunnerReport(oom_killed=engine)).oom_killed is expected


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "not JSON"),
        (b"{}", "contract version None"),
        (b'{"contract_version": "2.0"}', "contract version '2.0'"),
        (b'{"contract_version": "1.0"}', "training_run_id is missing"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff", "not JSON"),
    ],
)
def test_a_result_that_breaks_the_contract_is_a_finding(
    attempt: AttemptDirectory, content: bytes, problem: str
) -> None:
    attempt.result_file.write_bytes(content)

    evidence = collect_evidence(attempt)

    assert evidence.result is None
    assert problem in evidence.result_problem


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999", "1" + "0" * 400])
@pytest.mark.parametrize("loss", ["base_heldout_loss", "adapter_heldout_loss", "train_loss"])
def test_a_loss_that_is_not_finite_is_told_as_a_training_that_diverged(
    attempt: AttemptDirectory, loss: str, number: str
) -> None:
    write_document(attempt.result_file, RESULT)
    written = attempt.result_file.read_text()
    attempt.result_file.write_text(re.sub(rf'"{loss}": [\d.]+', f'"{loss}": {number}', written))

    outcome = judge(collect_evidence(attempt, exit_code=0), None)

    assert outcome.failure_code == "training_diverged"
    assert f"metrics.{loss} is not finite" in outcome.failure_reason


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        pytest.param({}, "names no file", id="no file"),
        pytest.param({"missing": FileEntry(sha256="0", size_bytes=1)}, "'missing' is missing", id="missing"),
        pytest.param({"../spec.json": FileEntry(sha256="0", size_bytes=1)}, "not a name inside", id="outside"),
        pytest.param({"/etc/passwd": FileEntry(sha256="0", size_bytes=1)}, "not a name inside", id="absolute"),
        pytest.param({"a\0b": FileEntry(sha256="0", size_bytes=1)}, "not a name inside", id="impossible name"),
        pytest.param(
            {"weights.safetensors": FileEntry(sha256="0", size_bytes=9)}, "has 7 bytes, the result says 9", id="size"
        ),
        pytest.param({"weights.safetensors": FileEntry(sha256="0", size_bytes=7)}, "have the hash", id="hash"),
        pytest.param({"link": FileEntry(sha256="0", size_bytes=1)}, "'link' is missing", id="link to the outside"),
        pytest.param({str(n): FileEntry(sha256="0", size_bytes=1) for n in range(9)}, "and 4 more", id="many"),
    ],
)
def test_the_adapters_files_are_compared_with_the_result(
    attempt: AttemptDirectory, files: dict[str, FileEntry], problem: str
) -> None:
    (attempt.adapter_directory / "link").symlink_to("/etc/passwd")
    write_document(attempt.result_file, replace(RESULT, adapter_files=files))

    assert problem in "; ".join(collect_evidence(attempt).adapter_problems)


def test_the_trainers_own_report_is_read(attempt: AttemptDirectory) -> None:
    report = FailureReport(
        exit_code=79,
        failure_code="internal_error",
        message="boom",
        remedy="look",
        phase="training",
        failed_at="2026-11-23T02:00:00+00:00",
        exceptions=(ExceptionEntry(type="KeyError", message="'x'"),),
    )
    write_document(attempt.failure_file, report)

    assert collect_evidence(attempt).failure == report


def test_a_stop_is_known_from_either_side(attempt: AttemptDirectory) -> None:
    assert collect_evidence(attempt, stop_requested=True).stop_requested
    write_document(attempt.process_exit_file, replace(EXIT, stop_requested=True))
    assert collect_evidence(attempt).stop_requested


def test_a_stream_that_cannot_be_read_says_so(attempt: AttemptDirectory) -> None:
    attempt.stderr_file.mkdir()

    assert "cannot be read" in collect_evidence(attempt).stderr.head
