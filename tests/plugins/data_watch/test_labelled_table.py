"""The labelled table on the databases people have: SQLite and PostgreSQL, both real."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from peft_retraining.data_watch.labelled_row import LabelledRow
from peft_retraining.data_watch.labelled_table import LabelledRows, LabelledTable
from peft_retraining.data_watch.windows import DataWindow
from peft_retraining.errors import InfrastructureError, UserError

TABLE = LabelledTable(
    table="ask_ai_queries",
    prompt_column="original_query",
    completion_column="suggestions",
    created_at_column="created_at",
)
END = datetime(2026, 11, 11, 2, tzinfo=UTC)
SINCE = datetime(2026, 11, 10, 2, tzinfo=UTC)
WINDOW = DataWindow(new_rows_since=SINCE, ends_at=END, may_grow=False)

Fill = Callable[..., sa.Engine]


@pytest.fixture(params=["sqlite", "postgresql", "postgresql with zone"])
def fill(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Fill]:
    """Return a function that makes the table with the given rows on a real database."""
    engines: list[sa.Engine] = []

    def make(rows: list[tuple[int, Any, Any, str | None]]) -> sa.Engine:
        if request.param == "sqlite":
            url, kind = f"sqlite:///{tmp_path / 'labelled.db'}", "TEXT"
        else:
            url = request.getfixturevalue("postgresql_database_url")
            kind = "TIMESTAMP" if request.param == "postgresql" else "TIMESTAMPTZ"
        writer = sa.create_engine(url)
        with writer.begin() as connection:
            connection.execute(sa.text("DROP TABLE IF EXISTS ask_ai_queries"))
            connection.execute(
                sa.text(
                    "CREATE TABLE ask_ai_queries"
                    f" (id INTEGER PRIMARY KEY, original_query TEXT, suggestions TEXT, created_at {kind})"
                )
            )
            if kind == "TIMESTAMPTZ":
                connection.execute(sa.text("SET TIME ZONE 'Asia/Tokyo'"))
                rows = [(i, p, c, at + "+00:00" if at else at) for i, p, c, at in rows]
            for row in rows:
                connection.execute(
                    sa.text("INSERT INTO ask_ai_queries VALUES (:id, :p, :c, :at)"),
                    dict(zip(("id", "p", "c", "at"), row, strict=True)),
                )
        writer.dispose()
        engines.append(sa.create_engine(url))
        return engines[-1]

    yield make
    for engine in engines:
        engine.dispose()


def test_rows_count_from_the_start_of_the_window_and_up_to_before_its_end(fill: Fill) -> None:
    engine = fill(
        [
            (1, "before", "a", "2026-11-10 01:59:59.999"),
            (2, "at the start", "a", "2026-11-10 02:00:00"),
            (3, "inside", "a", "2026-11-10 12:00:00.5"),
            (4, "just before the end", "a", "2026-11-11 01:59:59.999"),
            (5, "at the end", "a", "2026-11-11 02:00:00"),
        ]
    )

    assert LabelledRows(engine, TABLE).count_new(WINDOW) == 3


def test_without_a_start_all_rows_before_the_end_count(fill: Fill) -> None:
    engine = fill([(1, "old", "a", "2020-01-01 00:00:00"), (2, "new", "a", "2026-11-11 02:00:00")])

    assert LabelledRows(engine, TABLE).count_new(DataWindow(new_rows_since=None, ends_at=END, may_grow=False)) == 1


def test_a_row_without_prompt_or_completion_is_not_labelled(fill: Fill) -> None:
    moment = "2026-11-10 12:00:00"
    engine = fill([(1, None, "a", moment), (2, "q", None, moment), (3, "q", "a", moment)])

    assert LabelledRows(engine, TABLE).count_new(WINDOW) == 1


def test_rows_come_newest_first_with_the_time_in_utc(fill: Fill) -> None:
    engine = fill(
        [
            (1, "older", "a", "2026-11-09 08:00:00"),
            (2, "newer", "b", "2026-11-10 08:00:00.25"),
            (3, "same time, higher key", "c", "2026-11-10 08:00:00.25"),
            (4, "too new", "d", "2026-11-12 00:00:00"),
        ]
    )

    rows = list(LabelledRows(engine, TABLE).newest_first(END))

    assert [row.source_id for row in rows] == ["3", "2", "1"]
    assert rows[0] == LabelledRow(
        source_id="3",
        created_at="2026-11-10T08:00:00.250000+00:00",
        prompt="same time, higher key",
        completion="c",
    )


def test_a_row_without_a_time_comes_first_and_says_so(fill: Fill) -> None:
    engine = fill([(1, "q", "a", "2026-11-09 08:00:00"), (2, "timeless", "a", None)])

    rows = list(LabelledRows(engine, TABLE).newest_first(END))

    assert (rows[0].prompt, rows[0].created_at) == ("timeless", None)


def test_many_rows_are_read_in_pieces(fill: Fill) -> None:
    engine = fill([(i, f"q{i}", "a", "2026-11-09 08:00:00") for i in range(1, 1202)])

    assert len(list(LabelledRows(engine, TABLE).newest_first(END))) == 1201


@pytest.mark.parametrize(
    ("changed", "code", "words"),
    [
        ({"table": "ask_ai_querys"}, "labelled_table_missing", "ask_ai_queries"),
        ({"completion_column": "answer"}, "labelled_column_missing", "'answer' (setting completion_column)"),
    ],
)
def test_a_missing_table_or_column_is_named_with_what_is_there(
    fill: Fill, changed: dict[str, str], code: str, words: str
) -> None:
    engine = fill([])
    names = {**{field: getattr(TABLE, field) for field in TABLE.__slots__}, **changed}

    with pytest.raises(UserError) as caught:
        LabelledRows(engine, LabelledTable(**names)).count_new(WINDOW)

    assert caught.value.failure_code == code
    assert words in str(caught.value)


def test_a_text_column_is_no_time_on_postgresql(postgresql_database_url: str) -> None:
    engine = sa.create_engine(postgresql_database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS ask_ai_queries"))
        connection.execute(
            sa.text("CREATE TABLE ask_ai_queries (original_query TEXT, suggestions TEXT, created_at TEXT)")
        )

    with pytest.raises(UserError, match="expected a timestamp"):
        LabelledRows(engine, TABLE).count_new(WINDOW)
    engine.dispose()


def test_a_json_column_of_postgresql_arrives_parsed(postgresql_database_url: str) -> None:
    engine = sa.create_engine(postgresql_database_url)
    with engine.begin() as connection:
        connection.execute(sa.text("DROP TABLE IF EXISTS ask_ai_queries"))
        connection.execute(
            sa.text("CREATE TABLE ask_ai_queries (original_query TEXT, suggestions JSONB, created_at TIMESTAMP)")
        )
        connection.execute(sa.text("INSERT INTO ask_ai_queries VALUES ('q', '[{\"confidence\": 1}]', '2026-11-09')"))

    rows = list(LabelledRows(engine, TABLE).newest_first(END))

    assert rows[0].completion == [{"confidence": 1}]
    assert rows[0].source_id == ""
    engine.dispose()


def sqlite_file(path: Path, *statements: str) -> sa.Engine:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE ask_ai_queries (original_query TEXT, suggestions TEXT, created_at DATETIME)")
        for statement in statements:
            connection.execute(statement)
    connection.close()
    return sa.create_engine(f"sqlite:///{path}")


@pytest.mark.parametrize(
    "spelling",
    ["2026-11-10 12:00:00", "2026-11-10T12:00:00Z", "2026-11-10T14:00:00.123456+02:00", "2026-11-10 12:00"],
)
def test_sqlite_times_count_in_any_iso_spelling(tmp_path: Path, spelling: str) -> None:
    engine = sqlite_file(tmp_path / "a.db", f"INSERT INTO ask_ai_queries VALUES ('q', 'a', '{spelling}')")

    assert LabelledRows(engine, TABLE).count_new(WINDOW) == 1
    engine.dispose()


def test_sqlite_bytes_that_are_not_utf8_do_not_fail_the_query(tmp_path: Path) -> None:
    engine = sqlite_file(
        tmp_path / "a.db",
        "INSERT INTO ask_ai_queries VALUES (CAST(x'68ff69' AS TEXT), 'a', '2026-11-10 12:00:00')",
        "INSERT INTO ask_ai_queries VALUES ('fine', 'a', '2026-11-10 11:00:00')",
    )

    rows = list(LabelledRows(engine, TABLE).newest_first(END))

    assert [row.prompt for row in rows] == ["h\udcffi", "fine"]
    engine.dispose()


def test_a_missing_sqlite_file_is_named_and_not_created(tmp_path: Path) -> None:
    path = tmp_path / "missing.db"
    engine = sa.create_engine(f"sqlite:///{path}")

    with pytest.raises(InfrastructureError, match=r"missing\.db does not exist") as caught:
        LabelledRows(engine, TABLE).count_new(WINDOW)

    assert caught.value.failure_code == "labelled_data_missing"
    assert not path.exists()


def test_a_file_that_is_no_database_is_told_apart_from_one_that_is_away(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_bytes(b"Dear database, " * 100)
    engine = sa.create_engine(f"sqlite:///{path}")

    with pytest.raises(UserError, match="not a database") as caught:
        LabelledRows(engine, TABLE).count_new(WINDOW)

    assert caught.value.failure_code == "labelled_data_unreadable"
    engine.dispose()


def test_a_database_that_does_not_answer_may_be_tried_again() -> None:
    engine = sa.create_engine("postgresql://user:s3cret@127.0.0.1:1/labelled", connect_args={"connect_timeout": 2})

    with pytest.raises(InfrastructureError) as caught:
        LabelledRows(engine, TABLE).count_new(WINDOW)

    assert caught.value.retryable
    assert "s3cret" not in str(caught.value)


def test_a_user_who_may_not_read_is_told_so_and_not_that_the_database_is_away(postgresql_database_url: str) -> None:
    owner = sa.create_engine(postgresql_database_url)
    with owner.begin() as connection:
        connection.execute(
            sa.text("CREATE TABLE ask_ai_queries (original_query TEXT, suggestions TEXT, created_at TIMESTAMP)")
        )
        connection.execute(sa.text("DROP ROLE IF EXISTS stranger"))
        connection.execute(sa.text("CREATE ROLE stranger LOGIN"))
    stranger = sa.create_engine(owner.url.set(username="stranger"))

    with pytest.raises(UserError, match="permission denied") as caught:
        LabelledRows(stranger, TABLE).count_new(WINDOW)

    assert caught.value.failure_code == "labelled_data_forbidden"
    assert "SELECT" in caught.value.remedy
    stranger.dispose()
    owner.dispose()


def test_a_password_among_an_addresss_options_is_not_told() -> None:
    engine = sa.create_engine("postgresql://u@127.0.0.1:1/labelled?password=s3cret&connect_timeout=2")

    with pytest.raises(InfrastructureError) as caught:
        LabelledRows(engine, TABLE).count_new(WINDOW)

    assert "s3cret" not in str(caught.value)


def test_the_labelled_database_is_never_written(tmp_path: Path) -> None:
    engine = sqlite_file(tmp_path / "a.db")
    rows = LabelledRows(engine, TABLE)
    rows.count_new(WINDOW)

    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError, match="readonly"):
        connection.execute(sa.text("DELETE FROM ask_ai_queries"))
    engine.dispose()
