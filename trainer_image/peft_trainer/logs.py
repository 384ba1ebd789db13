"""The log: prose for people on stderr, one canonical line on stdout at the end.

Nothing of it is ever parsed for progress (events are data, logs are prose), and it never holds secrets, the
environment, or anybody's text.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from training_contract.documents import to_json_text
from training_contract.exit_codes import ExitCode
from training_contract.locations import AttemptDirectory
from training_contract.preflight_report import Finding
from training_contract.result import TrainingResult
from training_contract.run_spec import RunSpec

logger = logging.getLogger(__name__)

_MIB = 1024 * 1024


def configure_logging() -> None:
    """Send log records and warnings to stderr, each with its time and origin."""
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", force=True
    )
    logging.captureWarnings(True)
    warnings.simplefilter("once")
    warnings.simplefilter("ignore", FutureWarning)  # from one library to another; nobody who reads this can act on it
    for talkative in ("httpx", "httpx2", "httpcore", "filelock", "urllib3", "fsspec"):
        logging.getLogger(talkative).setLevel(logging.WARNING)


def log_banner(spec: RunSpec, attempt: AttemptDirectory, versions: Mapping[str, str]) -> None:
    """Log what is about to happen, with the whole configuration."""
    logger.info("Training run %s, attempt %d, of adapter %s.", spec.training_run_id, attempt.number, spec.adapter_name)
    logger.info("Packages: %s.", ", ".join(f"{name} {version}" for name, version in versions.items()))
    logger.info("Python %s; run directory %s.", sys.version.split()[0], attempt.root.parent)
    logger.info("Configuration:\n%s", to_json_text(spec).rstrip())


def log_memory(use: Mapping[str, int]) -> None:
    """Log how much memory is used."""
    logger.info(
        "Memory: %s.", ", ".join(f"{name.removesuffix('_bytes')} {size / _MIB:.0f} MiB" for name, size in use.items())
    )


def log_findings(findings: Iterable[Finding]) -> None:
    """Log what preflight found."""
    for finding in findings:
        level = logging.getLevelNamesMapping()[finding.severity.value.upper()]
        logger.log(level, "%s: %s. %s", finding.code, finding.message, finding.remedy)


def summary_line(
    exit_code: ExitCode,
    *,
    training_run_id: str,
    attempt: AttemptDirectory,
    result: TrainingResult | None,
    message: str = "",
) -> str:
    """Return the one line that says how the run ended: ``key=value`` pairs, values in JSON.

    Args:
        exit_code: How it ended.
        training_run_id: Whose run it was.
        attempt: Which attempt.
        result: What it produced, if it did.
        message: Why it failed, if it did.
    """
    facts: dict[str, Any] = {
        "training_run_id": training_run_id,
        "attempt": attempt.number,
        "ending": "succeeded" if exit_code is ExitCode.SUCCESS else exit_code.failure_code,
        "exit_code": int(exit_code),
    }
    if result is not None:
        metrics = result.metrics
        facts |= {
            "peft_type": result.peft_type,
            "base_heldout_loss": round(metrics.base_heldout_loss, 4),
            "adapter_heldout_loss": round(metrics.adapter_heldout_loss, 4),
            "train_loss": round(metrics.train_loss, 4),
            "global_step": metrics.global_step,
            "trained_row_count": metrics.trained_row_count,
            "too_long_row_count": metrics.too_long_row_count,
            "train_seconds": round(metrics.train_seconds, 1),
            "peak_memory_bytes": metrics.peak_memory_bytes,
        }
    if message:
        facts["message"] = message
    return "peft_trainer " + " ".join(f"{name}={json.dumps(value)}" for name, value in facts.items())
