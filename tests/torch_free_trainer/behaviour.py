"""What the torch-free trainer does: an honest run, or one of a few dishonest ones."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime

import pyarrow.parquet as pq

from training_contract.documents import read_document, write_document
from training_contract.durable_files import file_sha256
from training_contract.events import Ending, EventWriter, Finished, Phase, PhaseStarted, Progress, Started
from training_contract.exit_codes import ExitCode
from training_contract.failure import ExceptionEntry, FailureReport
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.result import FileEntry, TrainingMetrics, TrainingResult
from training_contract.run_spec import RunSpec
from training_contract.snapshot import RowsDigest, Split


def train(run_directory: RunDirectory, attempt: AttemptDirectory) -> int:
    spec = read_document(run_directory.spec_file, RunSpec)
    behaviour = spec.peft_settings.get("behaviour", "honest")
    events = EventWriter(attempt.events_file)
    events.write(Started(training_run_id=spec.training_run_id, process_id=os.getpid()))
    print("a line on stdout", flush=True)
    print("a line on stderr", file=sys.stderr, flush=True)
    for phase in Phase:
        events.write(PhaseStarted(phase=phase))
        if phase is Phase.LOADING_DATA and digest_of(run_directory) != spec.data.digest:
            return fail(attempt, events, ExitCode.DATA_INVALID, "the rows are not those that the spec names")
        if phase is Phase.TRAINING:
            for step in (1, 2):
                metrics = {"loss": 3.0 / step}
                events.write(
                    Progress(
                        phase=phase,
                        progress_percentage=40.0 * step,
                        estimated_remaining_seconds=2.0 - step,
                        global_step=step,
                        max_steps=2,
                        metrics=metrics,
                    )
                )
            if behaviour == "hang":
                print("hanging", flush=True)
                time.sleep(600)
            if behaviour == "fail":
                return fail(attempt, events, ExitCode.INTERNAL_ERROR, "planned failure")
            if behaviour == "fail_once" and attempt.number == 1:
                return fail(attempt, events, ExitCode.MODEL_DOWNLOAD_FAILED, "planned failure that passes")
            if behaviour == "exit_0_without_result":
                return 0
            if behaviour == "chatter":
                sys.stdout.write("".join(f"line {number} {'x' * 80}\n" for number in range(20_000)))
                print("RuntimeError: the cause is on stderr", file=sys.stderr)
                return 1
    attempt.adapter_directory.mkdir()
    adapter = attempt.adapter_directory / "adapter_model.safetensors"
    weights = f"{spec.data.digest}{spec.training.seed}"
    if behaviour == "other_weights_each_attempt":
        weights += f" attempt {attempt.number}"
    adapter.write_bytes(weights.encode())
    write_document(attempt.result_file, result_of(spec, run_directory, attempt, broken=behaviour == "broken_result"))
    if behaviour == "torn_adapter":
        adapter.write_bytes(b"torn")
    events.write(Finished(ending=Ending.SUCCEEDED))
    events.close()
    return 0


def fail(attempt: AttemptDirectory, events: EventWriter, exit_code: ExitCode, message: str) -> int:
    print(f"Traceback (most recent call last):\nRuntimeError: {message}", file=sys.stderr)
    report = FailureReport(
        exit_code=exit_code,
        failure_code=exit_code.failure_code,
        message=message,
        remedy="Plan a success.",
        phase=Phase.TRAINING.value,
        failed_at=datetime.now(UTC).isoformat(),
        exceptions=(ExceptionEntry(type="RuntimeError", message=message),),
    )
    write_document(attempt.failure_file, report)
    events.write(Finished(ending=Ending.FAILED, exit_code=exit_code))
    return exit_code


def digest_of(run_directory: RunDirectory) -> str:
    digest = RowsDigest()
    for row in pq.read_table(run_directory.rows_file).to_pylist():
        digest.add(row)
    return str(digest)


def result_of(spec: RunSpec, run_directory: RunDirectory, attempt: AttemptDirectory, *, broken: bool) -> TrainingResult:
    rows = pq.read_table(run_directory.rows_file).to_pylist()
    trained_count = sum(row["split"] == Split.TRAIN for row in rows)
    files = {
        path.name: FileEntry(sha256=file_sha256(path), size_bytes=path.stat().st_size)
        for path in attempt.adapter_directory.iterdir()
    }
    return TrainingResult(
        training_run_id="somebody-elses" if broken else spec.training_run_id,
        peft_type=spec.peft_type,
        base_model_name_or_path=spec.base_model.base_model_name_or_path,
        data_digest=digest_of(run_directory),
        adapter_files=files,
        metrics=TrainingMetrics(
            base_heldout_loss=3.0,
            adapter_heldout_loss=1.0,
            train_loss=1.5,
            global_step=2,
            trained_row_count=trained_count,
            trained_token_count=10 * trained_count,
            heldout_row_count=len(rows) - trained_count,
            too_long_row_count=0,
            trainable_parameter_count=1,
            train_seconds=0.1,
            peak_memory_bytes=1,
        ),
        finished_at=datetime.now(UTC).isoformat(),
    )
