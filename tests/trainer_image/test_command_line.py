"""The commands as they are called: exit codes, a stop from outside, and what they import."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from peft_trainer.checkpoints import MARKER_NAME
from peft_trainer.environment import REQUIREMENTS, version_problem
from training_contract.documents import read_document
from training_contract.events import Ending, EventReader, Finished, Progress
from training_contract.exit_codes import ExitCode
from training_contract.failure import FailureReport
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.process_exit import ProcessExit
from training_contract.result import TrainingResult

from .conftest import REPOSITORY, trainer_environment

MakeRun = Callable[..., RunDirectory]
RunTrainer = Callable[..., subprocess.CompletedProcess[str]]


def events_until_a_step(process: subprocess.Popen[bytes], attempt: AttemptDirectory) -> Iterator[Progress]:
    """Yield progress as it comes, until the process ends."""
    reader = EventReader(attempt.events_file)
    while process.poll() is None:
        yield from (read.event for read in reader.read_new() if isinstance(read.event, Progress))
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue


def test_a_stopped_run_saves_a_checkpoint_and_the_next_attempt_goes_on_from_it(
    make_run: MakeRun, run_trainer: RunTrainer, tiny_causal: Path
) -> None:
    run = make_run(tiny_causal, training={"max_steps": 150, "save_steps": 1000})
    command = [sys.executable, "-m", "peft_trainer", "train", "--run-dir", str(run.root), "--attempt", "1"]
    process = subprocess.Popen(command, env=trainer_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for progress in events_until_a_step(process, run.attempt(1)):
        if progress.global_step > 0:
            process.terminate()
            break
    assert process.wait(timeout=60) == ExitCode.STOPPED

    first = run.attempt(1)
    assert read_document(first.process_exit_file, ProcessExit).stop_requested
    assert read_document(first.failure_file, FailureReport).failure_code == "stopped"
    last = [read.event for read in EventReader(first.events_file).read_new()][-1]
    assert last == Finished(ending=Ending.STOPPED, exit_code=75)
    (checkpoint,) = first.checkpoints_directory.iterdir()
    assert (checkpoint / MARKER_NAME).exists()
    assert not first.result_file.exists()

    resumed = run_trainer("train", "--run-dir", run.root)
    assert resumed.returncode == 0, resumed.stderr
    second = run.attempt(2)
    result = read_document(second.result_file, TrainingResult)
    assert result.metrics.global_step == 150
    assert f"Resuming from {checkpoint}" in second.stderr_file.read_text()
    steps = [read.event for read in EventReader(second.events_file).read_new() if isinstance(read.event, Progress)]
    first_step = int(checkpoint.name.split("-")[1])
    assert min(step.global_step for step in steps if step.global_step) >= first_step


@pytest.mark.parametrize("directory", ["/no/such/directory", "/sys/kernel"], ids=["missing", "not-writable"])
def test_a_run_directory_that_cannot_be_used_has_its_own_exit_code(run_trainer: RunTrainer, directory: str) -> None:
    ended = run_trainer("train", "--run-dir", directory)
    assert ended.returncode == ExitCode.RUN_DIRECTORY_UNUSABLE
    assert directory in ended.stderr


def test_an_attempt_is_started_once(make_run: MakeRun, run_trainer: RunTrainer) -> None:
    run = make_run("unused")
    run.open_attempt().events_file.touch()
    ended = run_trainer("train", "--run-dir", run.root, "--attempt", "1")
    assert ended.returncode == ExitCode.RUN_DIRECTORY_UNUSABLE
    assert "was started before" in ended.stderr


def test_preflight_writes_its_report_and_prints_the_findings(
    make_run: MakeRun, run_trainer: RunTrainer, tiny_causal: Path
) -> None:
    run = make_run(tiny_causal, peft_settings={"rank": 1})
    ended = run_trainer("preflight", "--run-dir", run.root)
    assert ended.returncode == 0, ended.stderr
    assert "ADAPTER_SETTINGS_INVALID" in ended.stderr
    assert json.loads(run.preflight_file.read_text())["findings"][0]["code"] == "ADAPTER_SETTINGS_INVALID"


def test_prefetch_of_a_directory_that_is_not_there_is_not_found(run_trainer: RunTrainer, tmp_path: Path) -> None:
    ended = run_trainer("prefetch", "--base-model", tmp_path / "none")
    assert ended.returncode == ExitCode.MODEL_NOT_FOUND
    assert "What to do:" in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize("arguments", [[], ["train"], ["train", "--run-dir", ".", "--attempt", "0"], ["sing"]])
def test_a_wrong_command_line_ends_as_argparse_ends(run_trainer: RunTrainer, arguments: list[str]) -> None:
    assert run_trainer(*arguments).returncode == 2


def test_the_parent_imports_the_standard_library_only() -> None:
    program = (
        "import sys; before = set(sys.modules); import peft_trainer.__main__, peft_trainer.parent;"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env=trainer_environment(), capture_output=True, text=True, check=True
    )
    assert ended.stdout.split() == ["peft_trainer", "training_contract"]


def test_the_requirements_that_preflight_checks_are_those_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "trainer_image" / "pyproject.toml").read_text())["project"]
    assert sorted(project["dependencies"]) == sorted(f"{name}{needed}" for name, needed in REQUIREMENTS.items())


@pytest.mark.parametrize(
    ("version", "needed", "problem"),
    [
        ("2.13.0+cpu", ">=2.9", None),
        ("2.9", ">=2.9", None),
        ("2.8.9", ">=2.9", "too old"),
        ("5.20.0.dev0", ">=5.20,<6", None),
        ("6.0.0", ">=5.20,<6", "too new"),
        ("0.21.2", ">=0.21,<0.22", None),
        ("0.22", ">=0.21,<0.22", "too new"),
    ],
)
def test_a_version_is_in_its_range_or_not(version: str, needed: str, problem: str | None) -> None:
    assert version_problem(version, needed) == problem
