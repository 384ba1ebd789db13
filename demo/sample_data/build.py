"""The recipe of the sample data: the same seed and the same pinned packages give the same file.

Run as (from the root of the repository, with requirements/sample-data.txt installed):

    python -m demo.sample_data.build [--output FILE]

In come the pinned grammar, ``vocabulary.py`` and ``unusable_rows.json``; out goes the file that ``load.py`` reads.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import re
from collections.abc import Iterator, Sequence
from datetime import time
from pathlib import Path
from typing import Any

from demo.sample_data.defects import Defect, damage, planted_counts
from demo.sample_data.grammar import Grammar
from demo.sample_data.load import DATA_FILE, DAY_COUNT, Cell, SampleRow
from demo.sample_data.suggestions import suggestions

SEED = 20260701

_ROWS_A_DAY = (25, 45)
_HOUR_WEIGHTS = (2, 1, 1, 1, 1, 3, 9, 14, 12, 8, 7, 7, 9, 8, 7, 8, 11, 17, 24, 28, 27, 22, 14, 6)
"""How often people ask in each hour of the day: most in the evening, few at night."""


def build_rows(seed: int = SEED) -> list[SampleRow]:
    """Make the rows of the sample data, oldest first."""
    rng = random.Random(seed)
    times = list(_creation_times(rng))
    defects = _planted_defects(len(times), rng)
    conversations = _distinct_conversations(rng)
    rows: list[SampleRow] = []
    usable: list[SampleRow] = []
    for index, (days_before_last, time_of_day) in enumerate(times):
        defect = defects.get(index)
        cells: tuple[Cell, Cell]
        if defect is Defect.EXACT_DUPLICATE:
            original = rng.choice(usable)
            cells = original.original_query, original.suggestions
        else:
            question, entries = next(conversations)
            cells = damage(defect, question, entries) if defect else (question, json.dumps(entries))
        row = SampleRow(
            days_before_last=days_before_last, time=time_of_day, original_query=cells[0], suggestions=cells[1]
        )
        rows.append(row)
        if defect is None:
            usable.append(row)
    return rows


def as_file(rows: Sequence[SampleRow]) -> bytes:
    """Write rows in the format of the shipped file: JSON lines, compressed, without a time stamp."""
    content = "".join(f"{row.to_json()}\n" for row in rows).encode("ascii")
    buffer = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=buffer, mtime=0) as compressed:
        compressed.write(content)
    return buffer.getvalue()


def _creation_times(rng: random.Random) -> Iterator[tuple[int, time]]:
    hours = range(24)
    for days_before_last in range(DAY_COUNT - 1, -1, -1):
        times = [
            time(hour, rng.randrange(60), rng.randrange(60), rng.randrange(1_000_000))
            for hour in rng.choices(hours, _HOUR_WEIGHTS, k=rng.randint(*_ROWS_A_DAY))
        ]
        yield from ((days_before_last, time_of_day) for time_of_day in sorted(times))


def _planted_defects(row_count: int, rng: random.Random) -> dict[int, Defect]:
    """Choose which rows are unusable, and how; the first row stays good, so that there is something to duplicate."""
    defects = [defect for defect, count in planted_counts().items() for _ in range(count)]
    return dict(zip(rng.sample(range(1, row_count), len(defects)), defects, strict=True))


def _distinct_conversations(rng: random.Random) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    grammar = Grammar()
    seen: set[str] = set()
    while True:
        request = grammar.draw(rng)
        normalised = re.sub(r"\W+", " ", request.text.casefold())
        if normalised not in seen:
            seen.add(normalised)
            question = request.text[0].upper() + request.text[1:] if rng.random() < 0.5 else request.text
            yield question, suggestions(request, rng)


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description="Make the sample data.")
    parser.add_argument("--output", type=Path, default=DATA_FILE, metavar="FILE", help="default: the shipped file")
    output: Path = parser.parse_args().output
    rows = build_rows()
    output.write_bytes(as_file(rows))
    print(f"{len(rows)} rows of {DAY_COUNT} days written to {output}")


if __name__ == "__main__":
    main()
