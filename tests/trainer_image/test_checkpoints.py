"""Only a complete checkpoint of the same spec is gone on from; everything else is passed over by name."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from peft_trainer.checkpoints import MARKER_NAME, complete, find_checkpoint
from training_contract.locations import AttemptDirectory, RunDirectory

DIGEST = "sha256:of-this-spec"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run directory without attempts."""
    return RunDirectory(tmp_path)


def save(attempt: AttemptDirectory, step: int, *, digest: str = DIGEST, marked: bool = True) -> Path:
    """Write a checkpoint like the Trainer's, and complete it."""
    directory = attempt.checkpoints_directory / f"checkpoint-{step}"
    directory.mkdir(parents=True)
    for name in ("adapter_model.safetensors", "optimizer.pt", "training_args.bin"):
        (directory / name).write_bytes(name.encode() * 10)
    if marked:
        complete(directory, digest=digest, global_step=step, trained_token_count=10 * step, train_seconds=0.5 * step)
    return directory


def found(run: RunDirectory) -> Path | None:
    checkpoint = find_checkpoint(run, run.open_attempt(), DIGEST)
    return None if checkpoint is None else checkpoint.directory


def test_the_newest_checkpoint_of_the_newest_attempt_is_taken(run: RunDirectory) -> None:
    save(run.open_attempt(), 30)
    attempt = run.open_attempt()
    save(attempt, 9)
    newest = save(attempt, 10)
    assert found(run) == newest


def test_the_marker_carries_what_was_counted_so_far(run: RunDirectory) -> None:
    save(run.open_attempt(), 20)
    checkpoint = find_checkpoint(run, run.open_attempt(), DIGEST)
    assert checkpoint is not None
    assert (checkpoint.marker.global_step, checkpoint.marker.trained_token_count) == (20, 200)
    assert checkpoint.marker.train_seconds == 10.0


def test_nothing_but_plain_data_is_kept(run: RunDirectory) -> None:
    assert not (save(run.open_attempt(), 1) / "training_args.bin").exists()


def _unmark(directory: Path) -> None:
    (directory / MARKER_NAME).unlink()


def _tear_marker(directory: Path) -> None:
    marker = directory / MARKER_NAME
    marker.write_bytes(marker.read_bytes()[:-20])


def _tear_file(directory: Path) -> None:
    (directory / "optimizer.pt").write_bytes(b"optim")


def _lose_file(directory: Path) -> None:
    (directory / "adapter_model.safetensors").unlink()


@pytest.mark.parametrize("damage", [_unmark, _tear_marker, _tear_file, _lose_file])
def test_a_torn_checkpoint_is_passed_over_for_an_older_one(
    run: RunDirectory, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    attempt = run.open_attempt()
    older = save(attempt, 10)
    torn = save(attempt, 20)
    damage(torn)
    with caplog.at_level(logging.INFO, logger="peft_trainer.checkpoints"):
        assert found(run) == older
    assert f"Not resuming from {torn}" in caplog.text


def test_a_checkpoint_of_another_spec_is_not_taken(run: RunDirectory) -> None:
    save(run.open_attempt(), 10, digest="sha256:of-another-spec")
    assert found(run) is None


def test_a_run_that_had_succeeded_trains_again_even_if_older_attempts_left_checkpoints(run: RunDirectory) -> None:
    save(run.open_attempt(), 10)
    succeeded = run.open_attempt()
    save(succeeded, 20)
    succeeded.result_file.write_text("{}")
    assert found(run) is None


def test_an_attempt_after_a_success_that_was_interrupted_is_gone_on_from(run: RunDirectory) -> None:
    run.open_attempt().result_file.write_text("{}")
    newest = save(run.open_attempt(), 5)
    assert found(run) == newest


def test_a_checkpoint_of_this_or_a_later_attempt_is_not_ours_to_take(run: RunDirectory) -> None:
    attempt = run.open_attempt()
    save(attempt, 10)
    assert find_checkpoint(run, attempt, DIGEST) is None
