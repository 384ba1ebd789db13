"""The file behind a SQLite run store."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.engine import URL

from peft_retraining.run_store.store_errors import RunStoreDirectoryMissing

FILE_MODE = 0o660
"""Owner and group: the record holds excerpts of people's text, and several users of one group may write it."""


def prepare_sqlite_file(url: URL) -> None:
    """Create the file if it is not there; SQLite itself would let everyone read it.

    Nothing is done for other databases, for one in memory and for a ``file:`` address, which is its owner's affair.

    Raises:
        RunStoreDirectoryMissing: The directory does not exist.
        OSError: The file cannot be created.
    """
    name = url.database
    if url.get_backend_name() != "sqlite" or not name or name == ":memory:" or name.startswith("file:"):
        return
    path = Path(name)
    if path.exists():
        return
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE_MODE)
    except FileExistsError:
        return
    except FileNotFoundError as error:
        raise RunStoreDirectoryMissing(directory=path.parent.absolute()) from error
    try:
        os.fchmod(descriptor, FILE_MODE)  # the umask took its share
    finally:
        os.close(descriptor)
