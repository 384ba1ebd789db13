"""Who may read what the trainer leaves behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FILE_MODE: Final = 0o660
"""Owner and group read and write, others nothing: run directories hold people's text."""


def share_with_group(directory: Path) -> None:
    """Let the group read and write a directory's files.

    safetensors creates its own for the owner alone, whatever the umask.

    Raises:
        OSError: The file system refuses.
    """
    for place, _, names in os.walk(directory):
        for name in names:
            (Path(place) / name).chmod(FILE_MODE)
