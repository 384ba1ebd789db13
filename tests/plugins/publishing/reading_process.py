"""Reads latest as whoever serves the adapter does, over and over, until its standard input ends.

Usage: reading_process.py REPOSITORY ADAPTERS_DIRECTORY. Says ``ready`` after the first read; the last line tells, as
JSON, how many reads there were, which versions they found, and what went wrong.
"""

from __future__ import annotations

import json
import select
import sys

repository, adapters_directory = sys.argv[1:]
sys.path[:0] = [f"{repository}/plugins"]

from pathlib import Path  # noqa: E402

from training_contract.adapter_manifest import read_verified_manifest, resolve_latest  # noqa: E402
from training_contract.errors import ContractError  # noqa: E402

read_count = 0
versions: list[str] = []
problems: list[str] = []


def read_once() -> None:
    global read_count  # noqa: PLW0603
    read_count += 1
    try:
        version = read_verified_manifest(resolve_latest(Path(adapters_directory), "assistant")).version
    except (ContractError, FileNotFoundError) as error:
        problems.append(str(error))
        return
    if not versions or versions[-1] != version:
        versions.append(version)


read_once()
sys.stdout.write("ready\n")
sys.stdout.flush()
while not select.select([sys.stdin], [], [], 0)[0]:
    read_once()
read_once()
sys.stdout.write(json.dumps({"read_count": read_count, "versions": versions, "problems": problems}) + "\n")
