"""Several processes at once: publishers with publishers, and readers with publishers."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from peft_retraining.publishing.adapter_store import AdapterStore
from tests.plugins.publishing.crash_points import publishing_command
from tests.plugins.publishing.trained_adapters import night, temporary_paths, train_adapter

_log = logging.getLogger(__name__)

READER_COUNT = 2
PUBLISH_COUNT = 40


class Processes:
    """Starts processes, and ends those that are left when the test is over."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack

    def start(self, command: list[str]) -> subprocess.Popen[str]:
        """Start a process and wait until it is ready."""
        process = self._stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        self._stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def publish_together(self, store: AdapterStore, attempts: list[Path]) -> list[dict[str, Any]]:
        """Publish attempts at once, each in a process of its own; return what came of each."""
        running = []
        for number, attempt in enumerate(attempts):
            marks = attempt.parent / f"marks-{number}"
            marks.mkdir()
            running.append(self.start(publishing_command(store.adapters_directory, attempt, marks)))
        for process in running:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        return [finish(process) for process in running]


@pytest.fixture
def processes() -> Iterator[Processes]:
    with ExitStack() as stack:
        yield Processes(stack)


def finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Close the process's standard input and return what it said last."""
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    outcome: dict[str, Any] = json.loads(output.splitlines()[-1])
    return outcome


@pytest.mark.parametrize("days", [(10, 9), (9, 10), (3, 10, 9, 5)], ids=str)
def test_publishers_of_different_intervals_end_with_the_newest_as_latest(
    store: AdapterStore, tmp_path: Path, processes: Processes, days: tuple[int, ...]
) -> None:
    for day in days:
        train_adapter(tmp_path / f"attempt-{day}", night(day), weights=bytes(2_000_000))
    attempts = [tmp_path / f"attempt-{day}" for day in days]

    outcomes = dict(zip(days, processes.publish_together(store, attempts), strict=True))

    latest = store.latest()
    assert latest is not None
    assert latest.version == outcomes[10]["version"]
    assert outcomes[10]["moved_latest"]
    assert {manifest.version for manifest in store.versions()} == {outcome["version"] for outcome in outcomes.values()}
    assert all(store.verify(outcome["version"]) for outcome in outcomes.values())
    assert temporary_paths(store) == []


def test_publishers_of_the_same_adapter_make_one_version_and_one_move(
    store: AdapterStore, tmp_path: Path, processes: Processes
) -> None:
    train_adapter(tmp_path / "attempt-1", night(10), weights=bytes(2_000_000))

    outcomes = processes.publish_together(store, [tmp_path / "attempt-1"] * 3)

    assert len({outcome["version"] for outcome in outcomes}) == len(store.versions()) == 1
    assert sorted(outcome["moved_latest"] for outcome in outcomes) == [False, False, True]


def test_every_read_while_latest_moves_finds_a_whole_adapter(
    store: AdapterStore, tmp_path: Path, processes: Processes
) -> None:
    def publish(number: int) -> str:
        trained = train_adapter(tmp_path / "attempt", night(10), weights=bytes([number]) * 100_000)
        published = trained.publish_to(store)
        assert published.moved_latest
        return published.version

    published = [publish(0)]
    command = [sys.executable, "-S", "-E", str(Path(__file__).with_name("reading_process.py"))]
    repository = str(Path(__file__).parents[3])
    readers = [processes.start([*command, repository, str(store.adapters_directory)]) for _ in range(READER_COUNT)]
    published += [publish(number) for number in range(1, PUBLISH_COUNT)]

    for outcome in map(finish, readers):
        _log.info("%d reads found %d of %d versions", outcome["read_count"], len(outcome["versions"]), PUBLISH_COUNT)
        assert outcome["problems"] == []
        assert outcome["read_count"] >= 2
        assert outcome["versions"][-1] == published[-1]
        assert outcome["versions"] == sorted(outcome["versions"], key=published.index)
