"""Where everything lies in a run directory."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_ATTEMPT_NAME = re.compile(r"attempt-([1-9][0-9]{0,5})")
_HASHED = re.compile(r"(^|-)[0-9a-f]{12}$")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]+")

DIRECTORY_MODE = 0o2770
"""Run directories hold people's text: owner and group only, and the group is handed down."""


def path_component(text: str) -> str:
    """Turn any text, hostile ids included, into one safe and unique path component.

    Args:
        text: For example an Airflow ``run_id`` such as ``manual__2026-11-12T02:00:00+00:00``.

    Returns:
        At most 80 characters of ``[A-Za-z0-9_.-]``. Text that had to be changed carries a hash, and so does text that
        looks as if it did: two texts never meet.
    """
    readable = _UNSAFE.sub("-", text).strip("-.")[:63]
    if text and readable == text and not _HASHED.search(text):
        return text
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{readable}-{digest[:12]}" if readable else digest[:12]


@dataclass(frozen=True, slots=True)
class AttemptDirectory:
    """One start of the trainer: everything it left behind."""

    root: Path
    number: int

    @property
    def events_file(self) -> Path:
        """Typed progress, one JSON object a line, append only."""
        return self.root / "events.jsonl"

    @property
    def result_file(self) -> Path:
        """What was produced; written last."""
        return self.root / "result.json"

    @property
    def failure_file(self) -> Path:
        """Why it failed, as far as the trainer could say."""
        return self.root / "failure.json"

    @property
    def process_exit_file(self) -> Path:
        """How the trainer's process ended, written by its parent."""
        return self.root / "process_exit.json"

    @property
    def heartbeat_file(self) -> Path:
        """Touched by the trainer's parent every few seconds."""
        return self.root / "heartbeat"

    @property
    def stdout_file(self) -> Path:
        """What the trainer printed, for people."""
        return self.root / "stdout.log"

    @property
    def stderr_file(self) -> Path:
        """What the trainer and its libraries logged, for people."""
        return self.root / "stderr.log"

    @property
    def adapter_directory(self) -> Path:
        """The adapter's files; there only when complete."""
        return self.root / "adapter"

    @property
    def checkpoints_directory(self) -> Path:
        """Checkpoints of the training loop."""
        return self.root / "checkpoints"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The handover of one DAG run between the Airflow side and the trainer."""

    root: Path

    @property
    def spec_file(self) -> Path:
        """What is to be trained."""
        return self.root / "spec.json"

    @property
    def snapshot_directory(self) -> Path:
        """The frozen rows; there only when complete."""
        return self.root / "snapshot"

    @property
    def rows_file(self) -> Path:
        """The frozen rows themselves."""
        return self.snapshot_directory / "rows.parquet"

    @property
    def snapshot_file(self) -> Path:
        """The manifest of the frozen rows."""
        return self.snapshot_directory / "snapshot.json"

    @property
    def preflight_file(self) -> Path:
        """The trainer's own preflight report."""
        return self.root / "preflight.json"

    def attempts(self) -> Iterator[AttemptDirectory]:
        """Yield the attempts there are, oldest first."""
        found = []
        if self.root.is_dir():
            for entry in self.root.iterdir():
                match = _ATTEMPT_NAME.fullmatch(entry.name)
                if match and entry.is_dir() and not entry.is_symlink():
                    found.append(AttemptDirectory(entry, int(match.group(1))))
        yield from sorted(found, key=lambda attempt: attempt.number)

    def attempt(self, number: int) -> AttemptDirectory:
        """Name an attempt; whether it exists is not asked."""
        return AttemptDirectory(self.root / f"attempt-{number}", number)

    def open_attempt(self) -> AttemptDirectory:
        """Create the next attempt's directory; safe when two ask at once.

        Raises:
            OSError: The run directory cannot be written.
        """
        while True:
            number = max((attempt.number for attempt in self.attempts()), default=0) + 1
            attempt = self.attempt(number)
            try:
                attempt.root.mkdir()
            except FileExistsError:
                continue
            attempt.root.chmod(DIRECTORY_MODE)  # mkdir's own mode loses the set-group-id bit, and the umask cuts it
            return attempt
