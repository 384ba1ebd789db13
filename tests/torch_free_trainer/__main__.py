"""Run as ``python -m torch_free_trainer train|preflight|prefetch``; same commands as the real trainer."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from peft_trainer.parent import supervise
from torch_free_trainer.behaviour import train
from training_contract.documents import read_document, write_document
from training_contract.locations import RunDirectory
from training_contract.preflight_report import CacheState, Finding, Severity, TrainerPreflightReport
from training_contract.run_spec import RunSpec


def main() -> int:
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    for command in ("train", "train-child", "preflight"):
        sub = commands.add_parser(command)
        sub.add_argument("--run-dir", type=Path, required=True)
        sub.add_argument("--attempt", type=int)
    prefetch = commands.add_parser("prefetch")
    prefetch.add_argument("--base-model")
    prefetch.add_argument("--revision")
    prefetch.add_argument("--cache-dir")
    arguments = parser.parse_args()
    if arguments.command == "prefetch":
        print('{"cache_state": "complete"}')
        return 0
    run_directory = RunDirectory(arguments.run_dir)
    if arguments.command == "preflight":
        return preflight(run_directory)
    attempt = run_directory.attempt(arguments.attempt)
    if arguments.command == "train-child":
        return train(run_directory, attempt)
    child = [sys.executable, "-m", "torch_free_trainer", "train-child", *sys.argv[2:]]
    return supervise(child, attempt)


def preflight(run_directory: RunDirectory) -> int:
    spec = read_document(run_directory.spec_file, RunSpec)
    name = spec.base_model.base_model_name_or_path
    findings: list[Finding] = []
    if spec.peft_type not in ("LORA", "PROMPT_TUNING"):
        findings.append(
            Finding(
                code="UNSUPPORTED_PEFT_TYPE",
                severity=Severity.ERROR,
                message=f"peft_type is {spec.peft_type!r}; supported: LORA, PROMPT_TUNING",
                remedy="Choose a supported peft_type.",
            )
        )
    absent = "no-such" in name
    if absent:
        findings.append(
            Finding(
                code="MODEL_CACHE_ABSENT",
                severity=Severity.ERROR,
                message=f"the base model {name} is not in the cache",
                remedy="Run `peft-retraining cache prefetch`.",
            )
        )
    report = TrainerPreflightReport(
        findings=tuple(findings),
        versions={"torch-free-trainer": "1"},
        cache_state=CacheState.ABSENT if absent else CacheState.COMPLETE,
        checked_at=datetime.now(UTC).isoformat(),
    )
    write_document(run_directory.preflight_file, report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
