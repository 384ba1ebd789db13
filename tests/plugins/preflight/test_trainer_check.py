"""Asking the trainer's environment, also one that cannot answer."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from peft_retraining.preflight.trainer_check import ask_trainer
from peft_retraining.run_planning.plan import plan_run
from peft_retraining.settings import Runner, Settings
from training_contract.documents import write_document
from training_contract.locations import RunDirectory
from training_contract.preflight_report import CacheState
from training_contract.snapshot import SnapshotManifest

REPOSITORY = Path(__file__).resolve().parents[3]
PATHS = ":".join(str(REPOSITORY / folder) for folder in ("tests", "trainer_image", "plugins"))
TORCH_FREE = shlex.join(["env", f"PYTHONPATH={PATHS}", sys.executable, "-m", "torch_free_trainer"])


@pytest.fixture
def run_directory(tmp_path: Path) -> RunDirectory:
    snapshot = SnapshotManifest(
        digest="sha256:ab", train_row_count=1, heldout_row_count=1, window_ends_at="2026-11-11", frozen_at="2026-11-11"
    )
    directory = RunDirectory(tmp_path)
    write_document(directory.spec_file, plan_run(Settings(), snapshot, dag_id="d", run_id="r"))
    return directory


def settings(command: str, runner: Runner = Runner.PROCESS) -> Settings:
    return Settings(runner=runner, trainer_command=command)


def test_the_trainers_own_report_is_the_answer(run_directory: RunDirectory) -> None:
    report = ask_trainer(run_directory, settings(TORCH_FREE))

    assert report.errors == ()
    assert report.cache_state is CacheState.COMPLETE


@pytest.mark.parametrize(
    ("command", "runner", "code"),
    [
        ("", Runner.PROCESS, "TRAINER_COMMAND_NOT_SET"),
        ("'unbalanced", Runner.PROCESS, "TRAINER_COMMAND_INVALID"),
        ("/nonexistent/python -m peft_trainer", Runner.PROCESS, "TRAINER_ENVIRONMENT_MISSING"),
        (f"{sys.executable} -m no_such_trainer", Runner.PROCESS, "TRAINER_PREFLIGHT_FAILED"),
        ("/bin/true", Runner.PROCESS, "TRAINER_PREFLIGHT_FAILED"),
        (TORCH_FREE, Runner.DOCKER, "DOCKER_RUNNER_NOT_AVAILABLE"),
    ],
)
def test_a_trainer_that_cannot_be_asked_is_a_finding(
    run_directory: RunDirectory, command: str, runner: Runner, code: str
) -> None:
    report = ask_trainer(run_directory, settings(command, runner))

    assert [finding.code for finding in report.errors] == [code]
    assert report.errors[0].remedy
    assert report.cache_state is None


def test_a_report_of_an_earlier_preflight_is_not_taken_for_the_answer(run_directory: RunDirectory) -> None:
    ask_trainer(run_directory, settings(TORCH_FREE))

    assert ask_trainer(run_directory, settings("/bin/true")).errors
