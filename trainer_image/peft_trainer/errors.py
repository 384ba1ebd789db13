"""What can go wrong in the trainer, told apart by cause; each cause has its exit code in the contract.

What only other exceptions tell (memory, disk, permissions, packages that are missing) is told apart in ``failure``.

::

    TrainerError                     carries exit_code and remedy
    |-- SpecInvalid                   spec.json is missing, unreadable or of another contract version
    |-- DataInvalid                   the snapshot is missing, torn, or not the one the spec names
    |-- DataEmpty                     no row is left to train on or to judge with
    |-- ModelNotCached                the base model is not wholly there and must not be downloaded
    |-- ModelDownloadFailed           network, hub or access
    |-- ModelNotFound                 no such model, revision or directory
    |-- ModelInvalid                  damaged, unsafe (pickle) or unsupported files
    |-- AdapterSettingsInvalid        PEFT refuses the settings, or the peft_type is not supported
    |-- TrainingSettingsInvalid       the training settings cannot work
    |-- GpuUnavailable                a GPU is required and none can be used
    |-- TrainingDiverged              a loss is NaN or infinite
    |-- AdapterUnusable               the saved adapter did not pass its check
    `-- Stopped                       we were asked to stop and did
"""

from __future__ import annotations

from typing import ClassVar

from training_contract.exit_codes import ExitCode


class TrainerError(Exception):
    """A failure that is understood: it has a cause, an exit code and a remedy."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL_ERROR

    def __init__(self, message: str, *, remedy: str) -> None:
        """Describe the failure.

        Args:
            message: What was found and what was expected.
            remedy: What to do about it.
        """
        self.remedy = remedy
        super().__init__(message)


class SpecInvalid(TrainerError):
    """``spec.json`` is missing, unreadable or of another contract version."""

    exit_code = ExitCode.SPEC_INVALID


class DataInvalid(TrainerError):
    """The snapshot is missing, torn, or not the one whose digest the spec names."""

    exit_code = ExitCode.DATA_INVALID


class DataEmpty(TrainerError):
    """No row is left to train on or to judge with."""

    exit_code = ExitCode.DATA_EMPTY


class ModelNotCached(TrainerError):
    """The base model is not wholly in the cache and downloading is not allowed."""

    exit_code = ExitCode.MODEL_NOT_CACHED


class ModelDownloadFailed(TrainerError):
    """The base model could not be downloaded: network, hub or access."""

    exit_code = ExitCode.MODEL_DOWNLOAD_FAILED


class ModelNotFound(TrainerError):
    """There is no such model, revision or directory."""

    exit_code = ExitCode.MODEL_NOT_FOUND


class ModelInvalid(TrainerError):
    """The base model's files are damaged, unsafe (pickle) or of an unsupported kind."""

    exit_code = ExitCode.MODEL_INVALID


class AdapterSettingsInvalid(TrainerError):
    """PEFT refuses the adapter settings, or the ``peft_type`` is not supported."""

    exit_code = ExitCode.ADAPTER_SETTINGS_INVALID


class TrainingSettingsInvalid(TrainerError):
    """The training settings cannot work."""

    exit_code = ExitCode.TRAINING_SETTINGS_INVALID


class GpuUnavailable(TrainerError):
    """A GPU is required and none can be used."""

    exit_code = ExitCode.GPU_UNAVAILABLE


class TrainingDiverged(TrainerError):
    """A loss is NaN or infinite."""

    exit_code = ExitCode.TRAINING_DIVERGED


class AdapterUnusable(TrainerError):
    """The saved adapter is unchanged, not finite or not loadable."""

    exit_code = ExitCode.ADAPTER_UNUSABLE


class Stopped(TrainerError):
    """We were asked to stop and did."""

    exit_code = ExitCode.STOPPED
