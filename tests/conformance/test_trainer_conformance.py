"""What every trainer owes to the contract, judged from outside, by files and exit codes alone.

In the trainer's environment the real trainer is judged, on an untrained model; elsewhere the torch-free one that the
Airflow side's tests rest on. Both have to pass, or those tests prove nothing.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from training_contract.documents import read_document, write_document
from training_contract.durable_files import TEMPORARY_PREFIX, file_sha256
from training_contract.events import Ending, EventReader, Finished, PhaseStarted, Progress, Started
from training_contract.exit_codes import ExitCode
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.preflight_report import CacheState, Severity, TrainerPreflightReport
from training_contract.process_exit import ProcessExit
from training_contract.result import TrainingResult
from training_contract.run_spec import BaseModelSpec, DataSpec, GpuUse, LimitsSpec, RunSpec, TrainingSpec
from training_contract.snapshot import ROW_COLUMNS, RowsDigest

REPOSITORY = Path(__file__).resolve().parents[2]
IS_REAL = importlib.util.find_spec("torch") is not None
MODULE = "peft_trainer" if IS_REAL else "torch_free_trainer"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join(str(REPOSITORY / folder) for folder in ("tests", "trainer_image", "plugins")),
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Ended:
    """A trainer's command that ended."""

    run: RunDirectory
    attempt: AttemptDirectory
    exit_code: int

    @property
    def events(self) -> list[object]:
        return [read.event for read in EventReader(self.attempt.events_file).read_new()]


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base model that the trainer under test can work with."""
    directory = tmp_path_factory.mktemp("model")
    if IS_REAL:
        builder = REPOSITORY / "tests" / "trainer_image" / "tiny_models.py"
        subprocess.run([sys.executable, builder, directory], check=True, capture_output=True)
    return str(directory)


def make_run(root: Path, base_model: str) -> RunDirectory:
    rows = [
        {
            "source_id": str(number),
            "created_at": f"2026-11-01T00:00:{number:02d}.000000+00:00",
            "prompt": f"turn on the light in room {number}",
            "completion": f"turning on the light in room {number}",
            "split": "heldout" if number % 5 == 0 else "train",
        }
        for number in range(20)
    ]
    run = RunDirectory(root)
    run.snapshot_directory.mkdir(parents=True)
    pyarrow.parquet.write_table(
        pyarrow.table({column: [row[column] for row in rows] for column in ROW_COLUMNS}), run.rows_file
    )
    digest = RowsDigest()
    for row in rows:
        digest.add(row)
    spec = RunSpec(
        training_run_id="0123456789abcdef",
        adapter_name="assistant",
        base_model=BaseModelSpec(base_model_name_or_path=base_model),
        peft_type="LORA",
        training=TrainingSpec(num_train_epochs=1.0, learning_rate=1e-2, max_length=96, save_steps=2),
        data=DataSpec(digest=str(digest), train_row_count=16, heldout_row_count=4, sample_count=1),
        limits=LimitsSpec(gpu=GpuUse.NEVER, cpu_threads=1, max_new_tokens=4),
    )
    write_document(run.spec_file, spec)
    return run


def call(command: str, run: RunDirectory, *arguments: str) -> int:
    finished = subprocess.run(
        [sys.executable, "-m", MODULE, command, "--run-dir", str(run.root), *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        check=False,
        timeout=120,
    )
    return finished.returncode


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, base_model: str) -> Ended:
    """One training that succeeds."""
    run = make_run(tmp_path_factory.mktemp("runs") / "run", base_model)
    attempt = run.open_attempt()
    return Ended(run, attempt, call("train", run, "--attempt", str(attempt.number)))


def test_a_training_that_succeeds_ends_with_0(trained: Ended) -> None:
    assert trained.exit_code == 0, trained.attempt.stderr_file.read_text()


def test_events_begin_with_started_and_end_with_one_terminal_event(trained: Ended) -> None:
    events = trained.events

    assert isinstance(events[0], Started)
    assert [event for event in events if isinstance(event, Started | Finished)] == [
        events[0],
        Finished(ending=Ending.SUCCEEDED),
    ]
    assert isinstance(events[-1], Finished)


def test_progress_never_goes_back(trained: Ended) -> None:
    shown = [event.progress_percentage for event in trained.events if isinstance(event, Progress)]

    assert shown
    assert shown == sorted(shown)


def test_phases_come_in_their_order_and_once(trained: Ended) -> None:
    phases = [event.phase for event in trained.events if isinstance(event, PhaseStarted)]

    assert phases == sorted(set(phases), key=list(type(phases[0])).index)


def test_the_result_is_of_this_run_and_of_these_rows(trained: Ended) -> None:
    spec = read_document(trained.run.spec_file, RunSpec)
    result = read_document(trained.attempt.result_file, TrainingResult)

    assert result.training_run_id == spec.training_run_id
    assert result.data_digest == spec.data.digest
    assert (result.metrics.trained_row_count, result.metrics.heldout_row_count) == (16, 4)
    assert result.metrics.trained_token_count > 0


def test_the_adapters_files_are_those_of_the_result(trained: Ended) -> None:
    result = read_document(trained.attempt.result_file, TrainingResult)
    directory = trained.attempt.adapter_directory
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}

    assert found == set(result.adapter_files)
    for name, entry in result.adapter_files.items():
        assert file_sha256(directory / name) == entry.sha256
        assert (directory / name).stat().st_size == entry.size_bytes


def test_streams_are_kept_apart_and_the_end_is_recorded(trained: Ended) -> None:
    ending = read_document(trained.attempt.process_exit_file, ProcessExit)

    assert (ending.exit_code, ending.signal, ending.stop_requested) == (0, None, False)
    assert ending.stdout_bytes == trained.attempt.stdout_file.stat().st_size
    assert ending.stderr_bytes == trained.attempt.stderr_file.stat().st_size


def test_nothing_temporary_is_left(trained: Ended) -> None:
    assert not list(trained.run.root.rglob(f"{TEMPORARY_PREFIX}*"))


def test_preflight_of_a_sound_run_finds_no_error(tmp_path: Path, base_model: str) -> None:
    run = make_run(tmp_path / "run", base_model)

    assert call("preflight", run) == 0

    report = read_document(run.preflight_file, TrainerPreflightReport)
    assert [finding for finding in report.findings if finding.severity is Severity.ERROR] == []
    assert report.cache_state is CacheState.COMPLETE
    assert report.versions


def test_preflight_names_an_unknown_peft_type_and_a_missing_model(tmp_path: Path, base_model: str) -> None:
    run = make_run(tmp_path / "run", base_model)
    spec = read_document(run.spec_file, RunSpec)
    missing = replace(spec.base_model, base_model_name_or_path="somebody/no-such-model", cache_directory=str(tmp_path))
    write_document(run.spec_file, replace(spec, peft_type="NO_SUCH_TYPE", base_model=missing))

    assert call("preflight", run) == 0

    report = read_document(run.preflight_file, TrainerPreflightReport)
    codes = {finding.code for finding in report.findings if finding.severity is Severity.ERROR}
    assert codes >= {"UNSUPPORTED_PEFT_TYPE", "MODEL_CACHE_ABSENT"}
    assert report.cache_state is CacheState.ABSENT


def test_a_failing_training_ends_with_its_own_code_and_no_result(tmp_path: Path, base_model: str) -> None:
    run = make_run(tmp_path / "run", base_model)
    spec = read_document(run.spec_file, RunSpec)
    write_document(run.spec_file, replace(spec, data=replace(spec.data, digest="sha256:of-other-rows")))
    attempt = run.open_attempt()

    ended = Ended(run, attempt, call("train", run, "--attempt", str(attempt.number)))

    assert ended.exit_code == ExitCode.DATA_INVALID
    assert ended.events[-1] == Finished(ending=Ending.FAILED, exit_code=ExitCode.DATA_INVALID)
    assert not attempt.result_file.exists()
    assert not attempt.adapter_directory.exists()
