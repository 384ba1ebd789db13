"""Publishes one attempt's adapter in a process of its own, to be run together with others, or killed.

Usage: publishing_process.py REPOSITORY ADAPTERS_DIRECTORY ATTEMPT MARKS. Says ``ready``, waits for a line, publishes.
It makes the directories ``begun`` and ``ended`` in MARKS before and after; its last line says what came of it, as JSON.
"""

from __future__ import annotations

import json
import sys

repository, adapters_directory, attempt, marks = sys.argv[1:]
sys.path[:0] = [repository, f"{repository}/plugins"]

from pathlib import Path  # noqa: E402

from peft_retraining.errors import RetrainingError  # noqa: E402
from peft_retraining.publishing.adapter_store import AdapterStore  # noqa: E402
from tests.plugins.publishing.trained_adapters import read_trained  # noqa: E402


def mark(name: str) -> None:
    Path(marks, name).mkdir()  # one system call, unlike a file


store = AdapterStore(Path(adapters_directory), "assistant")
trained = read_trained(Path(attempt))
sys.stdout.write("ready\n")
sys.stdout.flush()
sys.stdin.readline()
mark("begun")
try:
    published = trained.publish_to(store)
    outcome = {"version": published.version, "moved_latest": published.moved_latest}
except RetrainingError as error:
    outcome = {"failure_code": error.failure_code}
finally:
    mark("ended")
sys.stdout.write(json.dumps(outcome) + "\n")
