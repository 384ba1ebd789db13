"""The sample data holds what its README says, and the loader brings every cell over as it is."""

from __future__ import annotations

import gzip
import importlib.util
import json
import math
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from demo.sample_data import defects, load
from demo.sample_data.vocabulary import AREAS, COLORS, DOMAIN_BY_NAME, ITEMS
from demo.sample_data.vocabulary import __file__ as vocabulary_file

README = Path(vocabulary_file).with_name("README.md")
ROWS = tuple(load.sample_rows())


def kind_of_confidence(entry: Mapping[str, Any]) -> str | None:
    confidence = entry.get("confidence")
    if confidence is None:
        return "missing_confidence"
    if isinstance(confidence, str):
        return "text_confidence"
    if math.isnan(confidence):
        return "nan_confidence"
    if confidence < 0:
        return "negative_confidence"
    return "confidence_above_one" if confidence > 1 else None


def kind_of_question(question: load.Cell) -> str | None:
    if question is None:
        return "null_question"
    if isinstance(question, bytes):
        return "invalid_utf8_in_question"
    if not question.strip():
        return "blank_question" if question else "empty_question"
    return "nul_byte_in_question" if "\0" in question else None


def kind_of_suggestions(suggestions: load.Cell) -> str | None:
    if suggestions is None:
        return "null_suggestions"
    if isinstance(suggestions, bytes):
        return "invalid_utf8_in_suggestions"
    try:
        return kind_of_entries(json.loads(suggestions))
    except ValueError:
        return "malformed_json"


def kind_of_entries(entries: Any) -> str | None:
    if not isinstance(entries, list):
        return "not_a_list"
    if not entries:
        return "empty_list"
    if any("\0" in entry["description"] for entry in entries):
        return "nul_character_in_description"
    if not all(entry["description"].strip() for entry in entries):
        return "empty_description"
    return next(filter(None, map(kind_of_confidence, entries)), None)


def classify(rows: tuple[load.SampleRow, ...]) -> list[tuple[load.SampleRow, str | None]]:
    """Say of each row what makes it unusable, by looking at the row and the ones before it only."""
    seen: set[tuple[load.Cell, load.Cell]] = set()
    classified = []
    for row in rows:
        cells = row.original_query, row.suggestions
        kind = kind_of_question(row.original_query) or kind_of_suggestions(row.suggestions)
        if kind is None and cells in seen:
            kind = "exact_duplicate"
        seen.add(cells)
        classified.append((row, kind))
    return classified


CLASSIFIED = classify(ROWS)
USABLE = [row for row, kind in CLASSIFIED if kind is None]


def best_description(row: load.SampleRow) -> str:
    assert isinstance(row.suggestions, str)
    return str(max(json.loads(row.suggestions), key=lambda entry: entry["confidence"])["description"])


def conversations() -> Iterator[tuple[str, str]]:
    for row in USABLE:
        assert isinstance(row.original_query, str)
        yield row.original_query.lower(), best_description(row)


def words(text: str) -> str:
    """Bring a text into a form in which whole words and numbers can be searched for."""
    return f" {' '.join(re.findall(r'[a-z]+|[0-9]+(?:[.:][0-9]+)?', text.lower()))} "


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "sample.sqlite"
    load.load_sample_database(path)
    return path


def read(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


class TestContent:
    def test_there_are_rows_for_four_months_of_training(self) -> None:
        rows_a_day = Counter(row.days_before_last for row in ROWS)

        assert len(ROWS) >= 4000
        assert sorted(rows_a_day) == list(range(load.DAY_COUNT))
        assert all(25 <= count <= 45 for count in rows_a_day.values())

    def test_rows_are_in_the_order_of_their_creation(self) -> None:
        moments = [(-row.days_before_last, row.time) for row in ROWS]

        assert moments == sorted(moments)

    def test_people_ask_in_the_evening_and_hardly_at_night(self) -> None:
        hours = Counter(row.time.hour for row in ROWS)

        assert sum(hours[hour] for hour in range(17, 23)) > 0.4 * len(ROWS)
        assert 0 < sum(hours[hour] for hour in range(5)) < 0.05 * len(ROWS)

    def test_unusable_rows_are_those_on_record(self) -> None:
        found = Counter(kind for _, kind in CLASSIFIED if kind is not None)

        assert found == {str(kind): count for kind, count in defects.planted_counts().items()}
        assert set(defects.planted_counts()) == set(defects.Defect)
        assert 0.025 <= found.total() / len(ROWS) <= 0.035

    def test_unusable_rows_lie_between_good_ones_all_the_time(self) -> None:
        days = Counter(row.days_before_last // 10 for row, kind in CLASSIFIED if kind is not None)

        assert all(days[decade] >= 3 for decade in range(12))

    def test_readme_states_what_is_planted(self) -> None:
        table = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", README.read_text(encoding="utf-8"), re.MULTILINE))

        assert {kind: int(count) for kind, count in table.items()} == defects.planted_counts()

    def test_no_two_usable_rows_ask_the_same(self) -> None:
        questions = [words(question) for question, _ in conversations()]

        assert len(set(questions)) == len(questions)

    def test_one_suggestion_is_clearly_the_best(self) -> None:
        for row in USABLE:
            assert isinstance(row.suggestions, str)
            entries = json.loads(row.suggestions)
            confidences = sorted(entry["confidence"] for entry in entries)
            assert 1 <= len(entries) <= 4
            assert confidences[-1] >= 0.8
            assert all(confidence <= 0.7 for confidence in confidences[:-1])

    def test_the_best_suggestion_is_not_always_the_first(self) -> None:
        places = Counter[int]()
        for row in USABLE:
            assert isinstance(row.suggestions, str)
            confidences = [entry["confidence"] for entry in json.loads(row.suggestions)]
            places[confidences.index(max(confidences))] += 1

        assert set(places) == {0, 1, 2, 3}


class TestAnswersFollowFromQuestions:
    def test_numbers_come_from_the_question(self) -> None:
        for question, answer in conversations():
            numbers = re.findall(r"[0-9]+(?:[.:][0-9]+)?", answer)
            assert all(f" {number} " in words(question) for number in numbers), (question, answer)

    @pytest.mark.parametrize(
        "values",
        [
            pytest.param(AREAS, id="areas"),
            pytest.param(COLORS, id="colors"),
            pytest.param(ITEMS, id="items"),
            pytest.param(tuple(DOMAIN_BY_NAME), id="names"),
        ],
    )
    def test_what_the_answer_names_is_in_the_question(self, values: tuple[str, ...]) -> None:
        named = [
            (value in question, question, answer)
            for question, answer in conversations()
            for value in values
            if f" {value} " in words(answer.split(" (")[0])
        ]

        assert len(named) > 100
        assert sum(in_question for in_question, _, _ in named) > 0.98 * len(named)

    def test_most_answers_are_given_once(self) -> None:
        answers = [answer for _, answer in conversations()]

        assert len(set(answers)) > 0.8 * len(answers)


class TestLoading:
    def test_every_row_arrives(self, tmp_path: Path) -> None:
        path = tmp_path / "sample.sqlite"

        row_count = load.load_sample_database(path)

        assert row_count == len(ROWS)
        assert read(path, "SELECT min(id), max(id), count(*) FROM ask_ai_queries") == [(1, row_count, row_count)]
        assert list(tmp_path.iterdir()) == [path]

    def test_columns_are_those_of_the_ask_ai_table(self, database: Path) -> None:
        columns = read(database, "SELECT name, type FROM pragma_table_info('ask_ai_queries')")

        assert columns == [
            ("id", "INTEGER"),
            ("original_query", "TEXT"),
            ("suggestions", "TEXT"),
            ("created_at", "DATETIME"),
        ]

    def test_cells_keep_every_byte_and_are_text(self, database: Path) -> None:
        cells = read(
            database,
            "SELECT CAST(original_query AS BLOB), CAST(suggestions AS BLOB), "
            "typeof(original_query), typeof(suggestions) FROM ask_ai_queries ORDER BY id",
        )

        for row, (question, suggestions, *types) in zip(ROWS, cells, strict=True):
            assert question == (
                row.original_query.encode() if isinstance(row.original_query, str) else row.original_query
            )
            assert suggestions == (row.suggestions.encode() if isinstance(row.suggestions, str) else row.suggestions)
            assert set(types) <= {"text", "null"}

    def test_invalid_utf8_is_really_invalid_in_the_database(self, database: Path) -> None:
        with closing(sqlite3.connect(database)) as connection, pytest.raises(sqlite3.OperationalError, match="UTF-8"):
            connection.execute("SELECT original_query FROM ask_ai_queries").fetchall()

    def test_the_same_end_gives_the_same_rows(self, tmp_path: Path) -> None:
        for name in ("one", "other"):
            load.load_sample_database(tmp_path / name, end=datetime(2030, 1, 1))

        assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()

    @pytest.mark.parametrize(
        ("end", "last_day"),
        [
            pytest.param(None, "2026-06-30", id="default"),
            pytest.param(datetime(2027, 3, 1), "2027-02-28", id="midnight"),
            pytest.param(datetime(2027, 3, 1, 14, 37), "2027-02-28", id="during a day"),
            pytest.param(datetime(2027, 3, 1, 14, 37, tzinfo=UTC), "2027-02-28", id="with a zone"),
            pytest.param(datetime(2027, 3, 1, 1, tzinfo=timezone(timedelta(hours=2))), "2027-02-27", id="another zone"),
        ],
    )
    def test_the_last_full_day_ends_at_the_end(self, tmp_path: Path, end: datetime | None, last_day: str) -> None:
        path = tmp_path / "sample.sqlite"
        load.load_sample_database(path, end=end)

        [(first, last)] = read(path, "SELECT min(created_at), max(created_at) FROM ask_ai_queries")
        [(rows_of_last_day,)] = read(path, f"SELECT count(*) FROM ask_ai_queries WHERE date(created_at) = '{last_day}'")

        assert last.startswith(last_day)
        assert rows_of_last_day >= 25
        assert datetime.fromisoformat(last).date() - datetime.fromisoformat(first).date() == timedelta(days=119)

    def test_times_are_written_with_microseconds_and_without_a_zone(self, database: Path) -> None:
        times = [created_at for (created_at,) in read(database, "SELECT created_at FROM ask_ai_queries")]

        assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}", created_at) for created_at in times)

    def test_a_database_that_is_there_is_replaced(self, database: Path) -> None:
        load.load_sample_database(database, end=datetime(2027, 1, 1))

        assert read(database, "SELECT date(max(created_at)), count(*) FROM ask_ai_queries") == [
            ("2026-12-31", len(ROWS))
        ]

    def test_a_failure_leaves_the_old_database_and_nothing_else(
        self, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = database.read_bytes()
        truncated = tmp_path / "truncated.gz"
        truncated.write_bytes(load.DATA_FILE.read_bytes()[:-1000])
        monkeypatch.setattr(load, "DATA_FILE", truncated)

        with pytest.raises(EOFError):
            load.load_sample_database(database)

        assert database.read_bytes() == before
        assert sorted(tmp_path.iterdir()) == sorted([database, truncated])

    def test_the_caller_of_load_into_decides_about_the_commit(self, tmp_path: Path) -> None:
        path = tmp_path / "mine.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            assert load.load_into(connection) == len(ROWS)
            connection.rollback()

        assert read(path, "SELECT count(*) FROM ask_ai_queries") == [(0,)]


class TestShippedFile:
    def test_it_is_small_and_carries_no_time_stamp(self) -> None:
        content = load.DATA_FILE.read_bytes()

        assert len(content) < 2_000_000
        assert content[4:8] == b"\0\0\0\0"

    @pytest.mark.skipif(
        not (importlib.util.find_spec("hassil") and importlib.util.find_spec("home_assistant_intents")),
        reason="hassil or home-assistant-intents is not installed (requirements/sample-data.txt)",
    )
    def test_the_recipe_makes_the_same_file(self) -> None:
        from demo.sample_data.build import as_file, build_rows

        made = as_file(build_rows())

        # Compared unpacked: another build of zlib may compress the same content to other bytes.
        assert gzip.decompress(made) == gzip.decompress(load.DATA_FILE.read_bytes())
