"""The layout of ``stdout.log`` and ``stderr.log``: the first and the last part of a stream in one file.

::

    | as printed, at most HEAD_LIMIT_BYTES | marker line | the last TAIL_LIMIT_BYTES |
                                            `----- only when more was printed -----'

The first part only ever grows, so a reader may follow it from an offset. The part behind it is rewritten in place
while the stream goes on. The marker says how many bytes lie between the two parts and has the same length whatever it
says. On a full disk the first part ends early; what was printed last follows behind a marker when the process has
ended.
"""

from __future__ import annotations

import re
from pathlib import Path

HEAD_LIMIT_BYTES = 64 * 1024 * 1024
"""Bytes of the first part at most."""
TAIL_LIMIT_BYTES = 256 * 1024
"""Bytes of the last part at most."""

_MARKER = re.compile(rb"\n\[\.\.\. +([0-9]+) bytes left out \.\.\.\]\n")


def left_out_marker(left_out_bytes: int) -> bytes:
    """Return the line that stands between the first and the last part."""
    return b"\n[... %20d bytes left out ...]\n" % left_out_bytes


MARKER_BYTES = len(left_out_marker(0))
"""Length of every marker."""


def left_out_bytes(path: Path, *, head_limit_bytes: int = HEAD_LIMIT_BYTES) -> int:
    """Return how many bytes of the stream are not in its file; 0 when the file has no marker behind its first part.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open("rb") as stream:
        stream.seek(head_limit_bytes)
        marker = _MARKER.fullmatch(stream.read(MARKER_BYTES))
    return int(marker.group(1)) if marker else 0
