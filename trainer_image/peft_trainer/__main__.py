"""The trainer's command line: ``python -m peft_trainer train|preflight|prefetch``.

``train`` is a small parent, standard library only, that starts ``train-child`` and outlives whatever that does. Each
command imports only what it needs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from training_contract.exit_codes import ExitCode
from training_contract.locations import DIRECTORY_MODE, AttemptDirectory, RunDirectory

_GROUP_UMASK = 0o007
"""Owner and group may do everything, others nothing: run directories hold people's text."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: Without the program's name; ``None``: those of this process.

    Returns:
        The exit code, as in ``training_contract.exit_codes``.
    """
    options = _parser().parse_args(arguments)
    os.umask(_GROUP_UMASK)
    try:
        return int(options.run(options))
    except OSError as error:
        print(f"peft_trainer: {error}", file=sys.stderr)
        return ExitCode.RUN_DIRECTORY_UNUSABLE


def _train(options: argparse.Namespace) -> int:
    from peft_trainer.parent import supervise  # noqa: PLC0415  # each command imports only what it needs

    attempt = _attempt(options)
    if attempt.events_file.exists():
        raise FileExistsError(f"attempt {attempt.number} in {options.run_dir} was started before; use a new one")
    child = [sys.executable, "-m", "peft_trainer", "train-child"]
    place = ["--run-dir", str(options.run_dir), "--attempt", str(attempt.number)]
    return supervise([*child, *place], attempt)


def _train_child(options: argparse.Namespace) -> int:
    from peft_trainer.attempt import run_attempt  # noqa: PLC0415

    return run_attempt(_run(options), _attempt(options))


def _preflight(options: argparse.Namespace) -> int:
    from peft_trainer.preflight import write_report  # noqa: PLC0415

    return write_report(_run(options))


def _prefetch(options: argparse.Namespace) -> int:
    from peft_trainer.prefetch import print_prefetched  # noqa: PLC0415

    return print_prefetched(options.base_model, revision=options.revision, cache_directory=options.cache_dir)


def _attempt(options: argparse.Namespace) -> AttemptDirectory:
    run = _run(options)
    if options.attempt is None:
        return run.open_attempt()
    attempt = run.attempt(options.attempt)
    attempt.root.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    return attempt


def _run(options: argparse.Namespace) -> RunDirectory:
    if not options.run_dir.is_dir():
        raise NotADirectoryError(f"the run directory {options.run_dir} is not there")
    return RunDirectory(options.run_dir)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m peft_trainer", description="Train one PEFT adapter.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = commands.add_parser("train", help="train the run in a run directory")
    train.set_defaults(run=_train)
    child = commands.add_parser("train-child", help="internal: what `train` starts")
    child.set_defaults(run=_train_child)
    for command in (train, child):
        command.add_argument("--attempt", type=_attempt_number, metavar="N", help="attempt to use (default: a new one)")
    preflight = commands.add_parser("preflight", help="check a run and write preflight.json")
    preflight.set_defaults(run=_preflight)
    for command in (train, child, preflight):
        command.add_argument("--run-dir", type=_absolute_path, required=True, metavar="DIR", help="the run directory")

    prefetch = commands.add_parser("prefetch", help="bring a base model into the cache, or check a directory")
    prefetch.set_defaults(run=_prefetch)
    prefetch.add_argument("--base-model", required=True, metavar="ID_OR_DIR", help="hub id or directory")
    prefetch.add_argument("--revision", metavar="R", help="commit, tag or branch on the hub (default: main)")
    prefetch.add_argument(
        "--cache-dir", type=_absolute_path, metavar="D", help="the hub cache (default: the library's)"
    )
    return parser


def _absolute_path(text: str) -> Path:
    return Path(text).absolute()


def _attempt_number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("attempts are numbered from 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
