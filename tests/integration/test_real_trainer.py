"""The real trainer through the real scheduler, from labelled rows to an answering adapter."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from integration.conftest import REPOSITORY, TRAINER_PYTHON, NightlyJob
from peft_retraining.run_store.records import TrainingRun
from peft_retraining.run_store.states import RunState
from training_contract.documents import read_document
from training_contract.result import TrainingResult

pytestmark = pytest.mark.integration

DAG = "nightly_real_trainer"


@pytest.fixture(scope="session")
def record(nightly_job: NightlyJob) -> TrainingRun:
    """The record of one run."""
    nightly_job.airflow.rest.unpause(DAG)
    run_id, state = nightly_job.run(DAG)
    record = nightly_job.record(DAG, run_id)
    assert state == "success", record.failure
    return record


def test_the_real_trainer_trains_and_its_adapter_is_published(record: TrainingRun) -> None:
    assert record.state is RunState.SUCCEEDED
    assert record.facts.adapter_heldout_loss is not None
    assert record.facts.base_heldout_loss is not None
    assert record.facts.adapter_heldout_loss < record.facts.base_heldout_loss


def test_the_record_has_phase_steps_and_output(record: TrainingRun) -> None:
    assert record.attempts is not None
    [attempt] = [attempt for attempt in record.attempts if attempt.key.task_id == "train_adapter"]

    assert attempt.facts.phase == "saving"
    assert attempt.facts.progress is not None
    assert attempt.facts.progress.global_step == attempt.facts.progress.max_steps
    assert attempt.facts.stderr is not None
    assert "learning_rate" in attempt.facts.stderr.head
    assert attempt.facts.exit_code == 0


def test_the_result_was_trained_on_the_frozen_rows(record: TrainingRun) -> None:
    assert record.attempts is not None
    directory = next(a.facts.run_directory for a in record.attempts if a.facts.run_directory)
    result = read_document(Path(directory) / "attempt-1" / "result.json", TrainingResult)

    assert result.data_digest == record.facts.data_digest
    assert result.metrics.trained_row_count == record.facts.train_row_count


def test_the_published_adapter_answers_after_loading(nightly_job: NightlyJob, record: TrainingRun) -> None:
    request = {
        "adapters_directory": str(nightly_job.adapters_directory),
        "adapter_name": "real",
        "prompts": ["turn on the light"],
    }

    completed = subprocess.run(
        [TRAINER_PYTHON, "-m", "demo.answer_questions"],
        cwd=REPOSITORY,
        env={"PYTHONPATH": f"{REPOSITORY / 'trainer_image'}:{REPOSITORY / 'plugins'}", "HF_HUB_OFFLINE": "1"},
        input=json.dumps(request),
        capture_output=True,
        text=True,
        check=False,
    )

    assert completed.returncode == 0, completed.stderr
    answered = json.loads(completed.stdout)
    assert answered["version"] == record.facts.adapter_version
    assert len(answered["answers"]) == 1
