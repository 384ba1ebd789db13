"""The trainer's exit codes: one number per cause.

The contract owns 10-79. The rest keep their usual meaning: 0 success, 1 and 2 Python's and argparse's, 125-127 the
container engine's, 128+n death by signal n.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Why the trainer ended; the name in lower case is the ``failure_code`` that people see."""

    SUCCESS = 0

    SPEC_INVALID = 10
    """``spec.json`` is missing, unreadable, or of another contract version."""
    RUN_DIRECTORY_UNUSABLE = 11
    """The run directory is missing or cannot be written."""

    DATA_INVALID = 20
    """The snapshot is missing, torn, or not the one whose digest the spec names."""
    DATA_EMPTY = 21
    """No row is left to train on, for example because all are longer than ``max_length``."""

    MODEL_NOT_CACHED = 30
    """The base model is not (wholly) in the cache and downloading is not allowed."""
    MODEL_DOWNLOAD_FAILED = 31
    """The base model could not be downloaded: network, hub or access."""
    MODEL_NOT_FOUND = 32
    """No such model or revision."""
    MODEL_INVALID = 33
    """The base model's files are damaged, unsafe (pickle) or of an unsupported kind."""

    DEPENDENCY_MISSING = 40
    """A Python package that the trainer needs is not installed, or is too old."""

    ADAPTER_SETTINGS_INVALID = 50
    """PEFT refuses the adapter settings, or the ``peft_type`` is not supported."""
    TRAINING_SETTINGS_INVALID = 51
    """The training settings cannot work, for example bf16 on hardware without it."""

    GPU_UNAVAILABLE = 60
    """A GPU was asked for and none can be used."""
    GPU_OUT_OF_MEMORY = 61
    """The GPU's memory did not suffice."""
    HOST_OUT_OF_MEMORY = 62
    """The host's memory did not suffice and Python could still say so."""
    DISK_FULL = 63
    """No space is left where the trainer writes."""

    TRAINING_DIVERGED = 70
    """The loss became NaN or infinite."""
    ADAPTER_UNUSABLE = 71
    """The saved adapter did not pass its check: unchanged, not finite, or not loadable."""
    STOPPED = 75
    """The trainer was asked to stop (SIGTERM) and did."""
    INTERNAL_ERROR = 79
    """An exception nobody foresaw; ``failure.json`` has its chain."""

    @property
    def failure_code(self) -> str:
        """The code as people see it, for example ``"model_not_cached"``."""
        return self.name.lower()
