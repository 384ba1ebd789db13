"""Which runner a setting asks for. There is no silent fallback from one to the other."""

from __future__ import annotations

import shlex

from peft_retraining.container.process_runner import ProcessRunner
from peft_retraining.container.runner import Runner as RunnerShape
from peft_retraining.errors import PlatformError
from peft_retraining.settings import Runner, Settings


def runner_of(settings: Settings) -> RunnerShape:
    """Return the runner that the settings ask for.

    Raises:
        PlatformError: It is not available, or not set up.
    """
    return ProcessRunner(trainer_command_of(settings))


def trainer_command_of(settings: Settings) -> list[str]:
    """Return how the trainer is called on this worker.

    Raises:
        PlatformError: The settings ask for the docker runner, or do not say how the trainer is called.
    """
    if settings.runner is Runner.DOCKER:
        raise PlatformError(
            "the setting runner is 'docker', and this release has the process runner only",
            failure_code="docker_runner_not_available",
            remedy="Set runner to process, and trainer_command to a trainer environment on the worker.",
            evidence={"trainer_image": settings.trainer_image},
        )
    try:
        command = shlex.split(settings.trainer_command)
    except ValueError as error:
        raise PlatformError(
            f"the setting trainer_command cannot be read as a command line: {error}",
            failure_code="trainer_command_invalid",
            remedy="Correct its quotes.",
            evidence={"trainer_command": settings.trainer_command},
        ) from error
    if not command:
        raise PlatformError(
            "the setting runner is 'process', and trainer_command is not set",
            failure_code="trainer_command_not_set",
            remedy="Install the trainer's environment on the worker and let trainer_command name its Python, "
            "for example `/opt/trainer/bin/python -m peft_trainer`.",
        )
    return command
