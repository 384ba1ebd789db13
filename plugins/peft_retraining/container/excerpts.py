"""Head and tail of a captured stream, read from its two ends however long the file is."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from peft_retraining.container.readable_text import readable
from peft_retraining.outcome.evidence import StreamExcerpt
from training_contract.captured_output import HEAD_LIMIT_BYTES, MARKER_BYTES, left_out_bytes

EXCERPT_CHARACTERS = 2500
"""Characters of a head and of a tail at most."""

_WINDOW_BYTES = 64 * 1024
_COUNTED_BYTES = 1024 * 1024
_CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


def read_excerpt(
    path: Path,
    *,
    total_bytes: int | None = None,
    limit_characters: int = EXCERPT_CHARACTERS,
    head_limit_bytes: int = HEAD_LIMIT_BYTES,
) -> StreamExcerpt:
    """Read head and tail of a captured stream.

    Args:
        path: The file; a missing one is an empty stream.
        total_bytes: What was printed, where somebody counted it; ``None``: as the file tells.
        limit_characters: Of the head and of the tail.
        head_limit_bytes: Where the file's own marker may stand.

    Raises:
        OSError: The file is there and cannot be read.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            first = stream.read(2 * _WINDOW_BYTES)
            last = b""
            if size > len(first):
                first = first[:_WINDOW_BYTES]
                stream.seek(size - _WINDOW_BYTES)
                last = stream.read(_WINDOW_BYTES)
    except FileNotFoundError:
        return StreamExcerpt(total_bytes=total_bytes or 0, omitted_characters=total_bytes or 0)
    if total_bytes is None:
        total_bytes = size
        if size > head_limit_bytes + MARKER_BYTES:
            total_bytes += left_out_bytes(path, head_limit_bytes=head_limit_bytes) - MARKER_BYTES
    if last:
        characters = total_bytes - _continuation_bytes_in(path)
        return _from_both_ends(_text(first), _text(last), total_bytes, characters, limit_characters)
    excerpt = excerpt_of(first, limit_characters=limit_characters)
    lost_bytes = max(0, total_bytes - size)
    omitted = excerpt.omitted_characters + lost_bytes
    return dataclasses.replace(excerpt, total_bytes=size + lost_bytes, omitted_characters=omitted)


def excerpt_of(content: bytes, *, limit_characters: int = EXCERPT_CHARACTERS) -> StreamExcerpt:
    """Return head and tail of a stream that is all there.

    Args:
        content: What was printed.
        limit_characters: Of the head and of the tail.
    """
    text = readable(content.decode("utf-8", "replace"))
    if len(text) <= 2 * limit_characters:
        return StreamExcerpt(head=text[:limit_characters], tail=text[limit_characters:], total_bytes=len(content))
    return _from_both_ends(text, text, len(content), len(content) - _continuation_bytes(content), limit_characters)


def read_end(path: Path, limit_bytes: int) -> str:
    """Return the readable end of a file; a missing one is empty.

    Raises:
        OSError: The file is there and cannot be read.
    """
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            stream.seek(max(0, size - limit_bytes))
            return _text(stream.read(limit_bytes))
    except FileNotFoundError:
        return ""


def _from_both_ends(first: str, last: str, total_bytes: int, total_characters: int, limit: int) -> StreamExcerpt:
    head, tail = _whole_lines_from_start(first, limit), _whole_lines_to_end(last, limit)
    # Spelled-out control characters take more room than what they stand for; something is left out all the same.
    omitted = max(1, total_characters - len(head) - len(tail))
    return StreamExcerpt(head=head, tail=tail, total_bytes=total_bytes, omitted_characters=omitted)


def _continuation_bytes_in(path: Path) -> int:
    with path.open("rb") as stream:
        return sum(_continuation_bytes(chunk) for chunk in iter(lambda: stream.read(_COUNTED_BYTES), b""))


def _continuation_bytes(content: bytes) -> int:
    """Count the bytes that do not begin a character of UTF-8; all others do."""
    return len(content) - len(content.translate(None, _CONTINUATION_BYTES))


def _whole_lines_from_start(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    cut = text.rfind("\n", limit // 2, limit) + 1
    return text[: cut or limit]


def _whole_lines_to_end(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    start = len(text) - limit
    cut = text.find("\n", start - 1, start + limit // 2) + 1
    return text[cut or start :]


def _text(window: bytes) -> str:
    """Decode a window that may begin or end inside a character."""
    start = 0
    while start < min(3, len(window)) and window[start] in _CONTINUATION_BYTES:
        start += 1
    return readable(window[start:].decode("utf-8", "replace"))
