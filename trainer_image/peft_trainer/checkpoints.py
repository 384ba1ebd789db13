"""Checkpoints that can be trusted: a marker with the hash of every file is written last.

Comes in: the directory that transformers' Trainer has just filled. Goes out: a complete checkpoint; or, for a later
attempt, the newest one of an earlier attempt that was of the same spec. The highest number is not enough: a killed
trainer leaves half of one.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from peft_trainer.sharing import share_with_group
from training_contract.documents import read_document, write_document
from training_contract.durable_files import file_sha256, flush_tree
from training_contract.errors import ContractError
from training_contract.locations import AttemptDirectory, RunDirectory

logger = logging.getLogger(__name__)

MARKER_NAME: Final = "complete.json"
PREFIX: Final = "checkpoint-"
_NEVER_READ: Final = "training_args.bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointMarker:
    """What makes a checkpoint complete.

    Attributes:
        spec_digest: SHA-256 of the ``spec.json`` it was trained under.
        global_step: Optimizer steps done.
        trained_token_count: Completion tokens that the loss was computed on so far.
        train_seconds: Duration of the training so far, over all attempts.
        files: SHA-256 by file name.
    """

    spec_digest: str
    global_step: int
    trained_token_count: int
    train_seconds: float
    files: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A checkpoint that is complete and sound."""

    directory: Path
    marker: CheckpointMarker


def spec_digest(run: RunDirectory) -> str:
    """Return what tells whether two attempts were of the same spec."""
    return f"sha256:{hashlib.sha256(run.spec_file.read_bytes()).hexdigest()}"


def complete(directory: Path, *, digest: str, global_step: int, trained_token_count: int, train_seconds: float) -> None:
    """Make a checkpoint durable and mark it as complete.

    Args:
        directory: What the Trainer has written.
        digest: ``spec_digest`` of this run.
        global_step: Optimizer steps done.
        trained_token_count: Completion tokens so far.
        train_seconds: Seconds of training so far.

    Raises:
        OSError: The file system refuses.
    """
    # The Trainer pickles its arguments; nobody reads them back, and nobody ever should.
    (directory / _NEVER_READ).unlink(missing_ok=True)
    share_with_group(directory)
    flush_tree(directory)
    files = {file.name: file_sha256(file) for file in sorted(directory.iterdir()) if file.is_file()}
    write_document(
        directory / MARKER_NAME,
        CheckpointMarker(
            spec_digest=digest,
            global_step=global_step,
            trained_token_count=trained_token_count,
            train_seconds=round(train_seconds, 3),
            files=files,
        ),
    )


def is_complete(directory: Path) -> bool:
    """Return whether a checkpoint of ours was marked as complete."""
    return (directory / MARKER_NAME).exists()


def find_checkpoint(run: RunDirectory, attempt: AttemptDirectory, digest: str) -> Checkpoint | None:
    """Return the newest complete checkpoint that this attempt may go on from, and log which or why none.

    Only attempts since the last one that has a result count: a run that is started again after it had succeeded trains
    again from the beginning.

    Args:
        run: The run directory.
        attempt: This attempt.
        digest: ``spec_digest`` of this run.
    """
    earlier = [other for other in run.attempts() if other.number < attempt.number]
    for other in reversed(earlier):
        if other.result_file.exists():
            logger.info("Attempt %d succeeded; this run trains again from the beginning.", other.number)
            return None
        for directory in _newest_first(other.checkpoints_directory):
            try:
                marker = _verified(directory, digest)
            except (ContractError, OSError, ValueError) as problem:
                logger.warning("Not resuming from %s: %s.", directory, problem)
            else:
                logger.info("Resuming from %s, at step %d.", directory, marker.global_step)
                return Checkpoint(directory=directory, marker=marker)
    logger.info("Training from the beginning: %s.", "no earlier attempt" if not earlier else "no usable checkpoint")
    return None


def _newest_first(checkpoints: Path) -> Iterator[Path]:
    steps = {}
    if checkpoints.is_dir():
        for entry in checkpoints.iterdir():
            step = entry.name.removeprefix(PREFIX)
            if entry.name.startswith(PREFIX) and step.isdigit() and entry.is_dir() and not entry.is_symlink():
                steps[int(step)] = entry
    for number in sorted(steps, reverse=True):
        yield steps[number]


def _verified(directory: Path, digest: str) -> CheckpointMarker:
    if not is_complete(directory):
        raise ValueError("it was never completed")
    marker = read_document(directory / MARKER_NAME, CheckpointMarker)
    if marker.spec_digest != digest:
        raise ValueError("it is of another spec")
    for name, sha256 in marker.files.items():
        file = directory / Path(name).name
        if not file.is_file():
            raise ValueError(f"{name} is missing")
        if file_sha256(file) != sha256:
            raise ValueError(f"{name} is not as it was saved")
    return marker
