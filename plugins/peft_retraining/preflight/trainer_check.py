"""Asks the trainer's environment about itself and about a spec, where the training will run."""

from __future__ import annotations

from peft_retraining.container.choice import trainer_command_of
from peft_retraining.container.trainer_command import run_trainer_command
from peft_retraining.errors import RetrainingError
from peft_retraining.preflight.findings import FindingCode, PreflightReport
from peft_retraining.settings import Settings
from training_contract.documents import read_document
from training_contract.errors import ContractError
from training_contract.locations import RunDirectory
from training_contract.preflight_report import Finding, Severity, TrainerPreflightReport

_TIMEOUT_SECONDS = 300.0
_MAX_WORDS_CHARACTERS = 300


def ask_trainer(run_directory: RunDirectory, settings: Settings) -> PreflightReport:
    """Run the trainer's own preflight.

    Args:
        run_directory: With spec and snapshot in it; the answer is written there too.
        settings: Say how the trainer is called.

    Returns:
        The trainer's findings, or one finding that says why it could not be asked.

    Raises:
        InfrastructureError: It did not answer in time; a retry may help.
    """
    run_directory.preflight_file.unlink(missing_ok=True)
    try:
        completed = run_trainer_command(
            trainer_command_of(settings),
            ["preflight", "--run-dir", str(run_directory.root)],
            timeout_seconds=_TIMEOUT_SECONDS,
        )
    except RetrainingError as error:
        if error.retryable:
            raise
        code = error.failure_code.upper()
        finding = Finding(code=code, severity=Severity.ERROR, message=str(error), remedy=error.remedy)
        return PreflightReport(findings=(finding,))
    try:
        report = read_document(run_directory.preflight_file, TrainerPreflightReport)
    except ContractError as error:
        return PreflightReport(findings=(_no_answer(completed.exit_code, completed.stderr, error),))
    return PreflightReport(
        findings=report.findings, cache_state=report.cache_state, base_model_revision=report.base_model_revision
    )


def _no_answer(exit_code: int, stderr: str, error: ContractError) -> Finding:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    words = lines[-1][:_MAX_WORDS_CHARACTERS] if lines else "nothing"
    return Finding(
        code=FindingCode.TRAINER_PREFLIGHT_FAILED,
        severity=Severity.ERROR,
        message=f"the trainer's preflight ended with exit code {exit_code} and left no report; it said: {words}",
        remedy="Run `python -m peft_trainer preflight --run-dir RUN_DIRECTORY` of the trainer's environment by hand; "
        "its packages are listed in requirements/trainer.txt.",
        evidence={"exit_code": str(exit_code), "report": str(error)[:_MAX_WORDS_CHARACTERS]},
    )
