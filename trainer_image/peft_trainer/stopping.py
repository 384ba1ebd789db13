"""How the trainer is asked to stop, and when it obeys.

SIGTERM (from the parent, the container engine or a person) and SIGINT raise ``Stopped`` at once where nothing is worth
keeping, and wait for the next safe point where something is: the training loop saves a checkpoint first, and an
adapter that is being saved is finished.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from peft_trainer.errors import Stopped


class StopRequest:
    """Notes the signal; raises now, or leaves it to whoever defers."""

    def __init__(self) -> None:
        self._deferring = False
        self.requested = False

    def listen(self) -> None:
        """Handle SIGTERM and SIGINT from now on; only the main thread may call this."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)

    def ignore(self) -> None:
        """Ignore both signals from now on: the run has come to its end by itself."""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let signals only take note: whoever is inside looks at ``requested`` where it is safe to stop."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def raise_if_requested(self) -> None:
        """Stop here if that was asked for.

        Raises:
            Stopped: It was.
        """
        if self.requested:
            self._raise()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        if not self._deferring:
            self._raise()

    def _raise(self) -> NoReturn:
        raise Stopped(
            "the trainer was asked to stop (SIGTERM) and did",
            remedy="Start the run again; it goes on from the newest complete checkpoint, if there is one.",
        )
