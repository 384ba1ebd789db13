"""Brings a base model into the cache ahead of the runs, which then need no network.

Comes in: a hub id or a directory. Goes out: one JSON line on stdout about what is there now, or the reason on stderr.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from peft_trainer import environment, logs
from peft_trainer.failure import diagnose
from training_contract.exit_codes import ExitCode
from training_contract.run_spec import BaseModelSpec


def print_prefetched(base_model: str, *, revision: str | None, cache_directory: Path | None) -> ExitCode:
    """Prefetch a base model and print what came of it.

    Args:
        base_model: A hub id or a directory.
        revision: Commit, tag or branch on the hub; ``None``: ``main``, or a directory.
        cache_directory: The hub cache; ``None``: the library's own default.
    """
    logs.configure_logging()
    environment.silence(progress_bars=sys.stderr.isatty())
    try:
        line = prefetch(base_model, revision=revision, cache_directory=cache_directory)
    except Exception as error:
        diagnosis = diagnose(error, directory=cache_directory or Path.home())
        sys.stderr.write(f"{diagnosis.message}\nWhat to do: {diagnosis.remedy}\n")
        return diagnosis.exit_code
    sys.stdout.write(f"{line}\n")
    return ExitCode.SUCCESS


def prefetch(base_model: str, *, revision: str | None, cache_directory: Path | None) -> str:
    """Download what is missing of a base model and check all of it; a directory is only checked.

    Args:
        base_model: A hub id or a directory.
        revision: Commit, tag or branch on the hub; ``None``: ``main``, or a directory.
        cache_directory: The hub cache; ``None``: the library's own default.

    Returns:
        A JSON object on one line: ``base_model_name_or_path``, ``path``, ``commit``, ``cache_state``, ``source``,
        ``parameter_count``.

    Raises:
        ModelNotFound: There is no such model, revision or directory.
        ModelDownloadFailed: Network, hub or access failed.
        ModelInvalid: What is there is damaged, or pickles only.
    """
    from peft_trainer.model_location import locate  # noqa: PLC0415  # the hub's library reads the environment once

    spec = BaseModelSpec(
        base_model_name_or_path=base_model,
        revision=revision,
        local_files_only=False,
        cache_directory=None if cache_directory is None else str(cache_directory),
    )
    files, source = locate(spec, verify_content=True)
    return json.dumps(
        {
            "base_model_name_or_path": files.name,
            "path": str(files.directory),
            "commit": files.commit,
            "cache_state": files.state.value,
            "source": source.value,
            "parameter_count": files.parameter_count,
        }
    )
