"""The command ``peft-retraining``: the record of runs, its database, and the cache of base models.

It reads the same configuration as the DAGs, so it is run where Airflow's commands are run. Exit codes: 0 done, 1 failed
with cause and remedy on stderr, 2 wrong usage; ``cache prefetch`` ends with the trainer's own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from peft_retraining import __version__
from peft_retraining.configuration import load_settings
from peft_retraining.container.choice import trainer_command_of
from peft_retraining.container.trainer_command import show_trainer_command
from peft_retraining.errors import RetrainingError, UserError
from peft_retraining.publishing.adapter_store import AdapterStore
from peft_retraining.run_store.presentation import run_as_dict, run_as_text, runs_as_table
from peft_retraining.run_store.records import TrainingRun
from peft_retraining.run_store.states import RunState
from peft_retraining.run_store.store import RunStore

_PREFETCH_LIMIT_SECONDS = 4 * 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Without the program's name; ``None``: those of this process.

    Returns:
        The exit code.
    """
    # As Airflow's own commands do: connections may be stored in Airflow's database, which only servers may read.
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")
    given = _parser().parse_args(arguments)
    try:
        return int(given.run(given))
    except RetrainingError as error:
        print(f"[{error.failure_code}] {error}\nRemedy: {error.remedy}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Somebody downstream (head, less) has read enough; Python would complain once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="peft-retraining", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    groups = parser.add_subparsers(dest="group", required=True)

    runs = groups.add_parser("runs", help="the record of runs").add_subparsers(dest="command", required=True)
    listing = runs.add_parser("list", help="list runs, newest first")
    listing.add_argument("--limit", type=_limit, default=25, help="runs to list, 1 to 1000 (default: 25)")
    listing.add_argument("--state", type=RunState, choices=list(RunState), help="only runs in this state")
    listing.add_argument("--dag-id", help="only runs of this DAG")
    listing.add_argument("--adapter-name", help="only runs of this adapter")
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=_list_runs)
    showing = runs.add_parser("show", help="show a run, its attempts, and what the trainer printed")
    showing.add_argument("training_run", metavar="RUN", help="id of the run, or Airflow's run_id")
    showing.add_argument("--dag-id", help="DAG of an Airflow run_id (default: the setting dag_id)")
    showing.add_argument("--json", action="store_true", help="print JSON")
    showing.set_defaults(run=_show_run)

    adapters = groups.add_parser("adapters", help="published adapters").add_subparsers(dest="command", required=True)
    published = adapters.add_parser("list", help="list the versions of an adapter, newest data first")
    published.add_argument("--adapter-name", help="which one (default: the setting adapter_name)")
    published.add_argument("--json", action="store_true", help="print JSON")
    published.set_defaults(run=_list_adapters)

    database = groups.add_parser("db", help="the database of the record").add_subparsers(dest="command", required=True)
    upgrade = database.add_parser("upgrade", help="make the tables, or bring older ones up to date")
    upgrade.set_defaults(run=_upgrade)

    cache = groups.add_parser("cache", help="the cache of base models").add_subparsers(dest="command", required=True)
    prefetch = cache.add_parser("prefetch", help="download a base model into the cache")
    prefetch.add_argument("--base-model", help="hub id (default: the setting base_model_name_or_path)")
    prefetch.add_argument("--revision", help="commit, tag or branch (default: the setting base_model_revision)")
    prefetch.set_defaults(run=_prefetch)
    return parser


def _limit(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1000:  # noqa: PLR2004 - the store's own bound, said in the help
        raise argparse.ArgumentTypeError("expected 1 to 1000")
    return number


@contextmanager
def _store() -> Iterator[RunStore]:
    from peft_retraining.connections import run_store_engine  # noqa: PLC0415 - Airflow is slow to load, --help is not

    engine = run_store_engine(load_settings().run_store_conn_id)
    try:
        yield RunStore.open(engine)
    finally:
        engine.dispose()


def _list_runs(given: argparse.Namespace) -> int:
    with _store() as store:
        runs = store.runs(
            given.limit,
            state=given.state,
            dag_ids=[given.dag_id] if given.dag_id else None,
            adapter_name=given.adapter_name,
        )
    print(_as_json([run_as_dict(run) for run in runs]) if given.json else runs_as_table(runs))
    return 0


def _show_run(given: argparse.Namespace) -> int:
    dag_id = given.dag_id or load_settings().dag_id
    with _store() as store:
        run: TrainingRun | None = store.run(given.training_run) or store.run_of(dag_id, given.training_run)
    if run is None:
        raise UserError(
            f"no run {given.training_run!r} is recorded, neither by its own id nor as a run of the DAG {dag_id!r}",
            failure_code="run_unknown",
            remedy="`peft-retraining runs list` shows the runs; name another DAG with --dag-id.",
        )
    print(_as_json(run_as_dict(run)) if given.json else run_as_text(run))
    return 0


def _list_adapters(given: argparse.Namespace) -> int:
    settings = load_settings()
    store = AdapterStore(Path(settings.adapters_directory), given.adapter_name or settings.adapter_name)
    latest = store.latest()
    versions = [
        {**asdict(manifest), "is_latest": latest is not None and manifest.version == latest.version}
        for manifest in store.versions()
    ]
    if given.json:
        print(_as_json(versions))
        return 0
    for version in versions:
        mark = "latest" if version["is_latest"] else ""
        losses = f"{version['base_heldout_loss']:.4f} to {version['adapter_heldout_loss']:.4f}"
        print(f"{version['version']}  {mark:<6}  held-out loss {losses}  {version['dag_id']} {version['run_id']}")
    if not versions:
        print(f"Nothing is published in {store.directory}.")
    return 0


def _upgrade(_: argparse.Namespace) -> int:
    with _store() as store:
        store.check_schema()
    print("The tables of the record of runs are up to date.")
    return 0


def _prefetch(given: argparse.Namespace) -> int:
    settings = load_settings()
    model = given.base_model or settings.base_model_name_or_path
    configured = settings.base_model_revision if model == settings.base_model_name_or_path else None
    revision = given.revision or configured
    return show_trainer_command(
        trainer_command_of(settings),
        [
            *("prefetch", "--base-model", model, "--cache-dir", settings.model_cache_directory),
            *(("--revision", revision) if revision else ()),
        ],
        timeout_seconds=_PREFETCH_LIMIT_SECONDS,
    )


def _as_json(body: object) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False)
