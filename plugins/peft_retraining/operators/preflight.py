"""The operator that checks everything that can be checked before training."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from peft_retraining.configuration import executors
from peft_retraining.connections import run_store_engine
from peft_retraining.operators.planning import write_spec
from peft_retraining.preflight.findings import PreflightFailed, PreflightReport, errors_first
from peft_retraining.preflight.host_checks import check_adapters_directory, check_disk_space, check_run_store
from peft_retraining.preflight.trainer_check import ask_trainer
from peft_retraining.recording import recorded_task
from peft_retraining.run_context import run_directory_of, settings_of_run
from peft_retraining.settings import Settings
from training_contract.preflight_report import Severity

if TYPE_CHECKING:
    from airflow.sdk import Context


class PreflightOperator(BaseOperator):
    """Checks the trainer's environment, the model cache, disk, memory, GPU and the settings, before a GPU is taken.

    It writes the run spec and lets the trainer's environment judge it. All findings are told at once; any error fails
    the task without a retry.

    Args:
        settings: Of the DAG.
        kwargs: As for every Airflow operator.
    """

    def __init__(self, *, settings: Settings, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.settings = settings

    def execute(self, context: Context) -> dict[str, Any]:
        """Check; return the state of the model cache and all findings."""
        with recorded_task(context, self.settings) as record:
            settings = settings_of_run(context, self.settings)
            run_directory = run_directory_of(context, settings)
            ids = {"dag_id": context["ti"].dag_id, "run_id": context["ti"].run_id}
            adapters_directory = Path(settings.adapters_directory)
            findings = [
                *check_adapters_directory(adapters_directory),
                *check_disk_space(path for path in (run_directory.root, adapters_directory) if path.is_dir()),
                *check_run_store(dialect=_dialect_of_run_store(settings), executors=executors()),
            ]
            write_spec(run_directory, settings, model=None, **ids)
            answer = ask_trainer(run_directory, settings)
            report = PreflightReport(
                findings=errors_first([*findings, *answer.findings]),
                cache_state=answer.cache_state,
                base_model_revision=answer.base_model_revision,
            )
            self._log(report)
            record.run(base_model_revision=report.base_model_revision)
            if report.errors:
                raise PreflightFailed(report)
            return {
                "cache_state": report.cache_state.value if report.cache_state else None,
                "base_model_revision": report.base_model_revision,
                "findings": [
                    {"code": finding.code, "severity": finding.severity.value, "message": finding.message}
                    for finding in report.findings
                ],
            }

    def _log(self, report: PreflightReport) -> None:
        levels = {Severity.ERROR: self.log.error, Severity.WARNING: self.log.warning, Severity.INFO: self.log.info}
        for finding in report.findings:
            levels[finding.severity]("%s: %s %s", finding.code, finding.message, finding.remedy)
        self.log.info("Preflight: %d findings, %d errors", len(report.findings), len(report.errors))


def _dialect_of_run_store(settings: Settings) -> str:
    engine = run_store_engine(settings.run_store_conn_id)
    engine.dispose()
    return engine.dialect.name
