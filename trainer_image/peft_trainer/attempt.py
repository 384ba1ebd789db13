"""One attempt, from start to exit code: the frame around the story in ``run``.

Comes in: a run directory and an attempt in it. Goes out: an exit code, exactly one terminal event, and ``failure.json``
when it failed. The libraries are imported inside, so that a missing one is a failure with a name and not a traceback.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys

from peft_trainer import environment, logs, memory
from peft_trainer.errors import SpecInvalid, Stopped
from peft_trainer.failure import Diagnosis, diagnose, write_failure
from peft_trainer.progress import Progress
from peft_trainer.reporter import Reporter
from peft_trainer.stopping import StopRequest
from training_contract.documents import read_document
from training_contract.errors import ContractError
from training_contract.events import Ending, EventWriter
from training_contract.exit_codes import ExitCode
from training_contract.locations import AttemptDirectory, RunDirectory
from training_contract.result import TrainingResult
from training_contract.run_spec import RunSpec

logger = logging.getLogger(__name__)


def run_attempt(run: RunDirectory, attempt: AttemptDirectory) -> ExitCode:
    """Train, and leave the evidence of how it went.

    Args:
        run: The run directory.
        attempt: One of its attempts; its directory exists.
    """
    logs.configure_logging()
    stop = StopRequest()
    try:
        reporter = Reporter(EventWriter(attempt.events_file), Progress())
    except OSError as error:
        diagnosis = diagnose(error, directory=run.root)
        logger.error("%s %s", diagnosis.message, diagnosis.remedy)
        return diagnosis.exit_code
    training_run_id = ""
    try:
        stop.listen()
        spec = _read_spec(run, reporter)
        training_run_id = spec.training_run_id
        logs.log_banner(spec, attempt, environment.installed_versions())
        environment.prepare_environment(spec)
        from peft_trainer.run import train_adapter  # noqa: PLC0415  # after the environment is prepared

        result = train_adapter(spec, run, attempt, reporter, stop)
    except BaseException as error:
        stop.ignore()
        diagnosis = diagnose(error, directory=run.root)
        _tell_failure(error, diagnosis, attempt, reporter, training_run_id)
        return diagnosis.exit_code
    reporter.finish(Ending.SUCCEEDED, ExitCode.SUCCESS)
    logs.log_memory(memory.measure())
    _print_summary(ExitCode.SUCCESS, training_run_id, attempt, result)
    return ExitCode.SUCCESS


def _read_spec(run: RunDirectory, reporter: Reporter) -> RunSpec:
    versions = environment.installed_versions()
    try:
        spec = read_document(run.spec_file, RunSpec)
    except ContractError as error:
        reporter.start(training_run_id="", process_id=os.getpid(), versions=versions)
        raise SpecInvalid(
            str(error),
            remedy="Start the run from the Airflow side, which writes spec.json, in the same release as the trainer.",
        ) from error
    reporter.start(training_run_id=spec.training_run_id, process_id=os.getpid(), versions=versions)
    return spec


def _tell_failure(
    error: BaseException, diagnosis: Diagnosis, attempt: AttemptDirectory, reporter: Reporter, training_run_id: str
) -> None:
    stopped = isinstance(error, Stopped)
    if stopped:
        logger.warning("%s.", diagnosis.message)
    else:
        logger.error("The run failed: %s", diagnosis.message, exc_info=error)
    logger.info("What to do: %s", diagnosis.remedy)
    write_failure(attempt.failure_file, error, diagnosis, phase=reporter.phase.value, memory=memory.measure())
    reporter.finish(Ending.STOPPED if stopped else Ending.FAILED, diagnosis.exit_code)
    _print_summary(diagnosis.exit_code, training_run_id, attempt, None, diagnosis.message)


def _print_summary(
    exit_code: ExitCode,
    training_run_id: str,
    attempt: AttemptDirectory,
    result: TrainingResult | None,
    message: str = "",
) -> None:
    line = logs.summary_line(
        exit_code, training_run_id=training_run_id, attempt=attempt, result=result, message=message
    )
    with contextlib.suppress(OSError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()
