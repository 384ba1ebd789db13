"""Finds the lines that say why a program ended (pure).

Only what stands where an error stands is taken: the exception lines below a traceback, and lines in the shapes in which
programs announce their own end. The same words in a warning, a log message or a training row are just words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_TRACEBACK = re.compile(r"(.{0,300}?)Traceback \(most recent call last\):\s*")
_BOXED_TRACEBACK = re.compile(r"╭─.{0,300}Traceback \(most recent call last\)")
_BOX_END = "╰"
_EXCEPTION = re.compile(r"([A-Za-z_][\w.]{0,200})(?::\s(.*)|:?\s*)")
_SYNTAX = re.compile(r"(?:SyntaxError|IndentationError|TabError): ")
_CHAIN = (
    "The above exception was the direct cause of the following exception:",
    "During handling of the above exception, another exception occurred:",
)
_NO_CAUSE = ("Exception ignored in", "--- Logging error ---")
_FRAME = re.compile(r'  File "(.{1,300})", line (\d+)')
_PROGRESS_BAR = re.compile(r"\s*\d{1,3}%\|")
_ANY_ERROR = re.compile(r"(?:Error|Exception|Warning|Interrupt|Exit)$")
_MAX_CONTINUATION_LINES = 5
_MAX_MESSAGE_LINES = 12
_MAX_LINES = 20

# Exceptions that only say that another process or thread has failed; its own traceback stands further up.
_MESSENGERS = frozenset({"CalledProcessError", "BrokenProcessPool", "Empty", "SystemExit"})
_LAUNCHERS = frozenset({"ChildFailedError", "ProcessRaisedException"})

_LAST_WORDS = re.compile(
    r"The trainer cannot be started: .+"
    r"|docker: .+"
    r"|Unable to find image .+"
    r"|Fatal Python error: .+"
    r"|terminate called after throwing .+"
    r"|\s*what\(\):\s+.+"
    r"|(?:ERROR|FATAL|fatal|error): .+"
    r"|\S{1,200}: error: .+"
    r"|\S{1,200}: error while loading shared libraries: .+"
    r"|\S{0,200}python[\d.]*: (?:No module named|can't open file|Error while finding module) .+"
    r"|\S{1,200}: (?:line \d+: )?(?:.{1,200}: )?(?:command )?not found"
    r"|\S{1,200}: (?:line \d+: )?(?:.{1,200}: )?(?:No such file or directory|Permission denied)"
    r"|\S{1,200}: line \d+: +\d+ (?:Killed|Terminated|Aborted|Segmentation fault|Bus error|Illegal instruction)\b.*"
    r"|(?:Killed|Terminated|Aborted|Segmentation fault|Bus error|Illegal instruction)(?: \(core dumped\))?"
)


@dataclass(frozen=True, slots=True)
class ErrorLine:
    """One line that says why.

    Attributes:
        exception_type: As the traceback spells it, for example ``torch.OutOfMemoryError``; empty: a program's own
            words.
        message: What it says.
    """

    exception_type: str
    message: str

    @property
    def text(self) -> str:
        """The line as it is printed."""
        return ": ".join(part for part in (self.exception_type, self.message) if part)

    @property
    def type_name(self) -> str:
        """The exception's type without its module."""
        return self.exception_type.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class _Chain:
    """An exception and what caused it, root cause first, as it is printed.

    Attributes:
        lines: The exceptions.
        prefix: What a launcher put before each line, for example ``"[rank1]: "``.
    """

    lines: tuple[ErrorLine, ...]
    prefix: str

    def ends_in(self, types: frozenset[str]) -> bool:
        return self.lines[-1].type_name in types


def find_error_lines(text: str) -> tuple[ErrorLine, ...]:
    """Return why a program ended, as far as its output tells.

    Args:
        text: The end of its output, readable.

    Returns:
        The last exception, then what caused it, root cause last. When it is a mere messenger, the one that it brings
        word of. Without a traceback: the last words in the shape of an error, last first. Empty: nothing tells.
    """
    lines = text.splitlines()
    chains = list(_exception_chains(lines))
    if chains:
        return tuple(reversed(_telling(chains).lines))[:_MAX_LINES]
    words = [ErrorLine("", line.strip()) for line in lines if _LAST_WORDS.fullmatch(line)]
    return tuple(reversed(words[-_MAX_LINES:]))


def last_line(text: str) -> str:
    """Return the last line that is not blank."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def _telling(chains: Sequence[_Chain]) -> _Chain:
    """Return the chain that says most about the end: the last one, unless it is a messenger."""
    if chains[-1].ends_in(_LAUNCHERS):
        # The process that fails first takes the others with it.
        for chain in chains:
            if chain.prefix:
                return chain
    return next((chain for chain in reversed(chains) if not chain.ends_in(_MESSENGERS | _LAUNCHERS)), chains[-1])


def _exception_chains(lines: Sequence[str]) -> Iterator[_Chain]:
    """Yield the chains of exceptions in the order they are printed."""
    chain: list[ErrorLine] = []
    prefix = ""
    chained = ignored = False
    position = read_to = 0
    while position < len(lines):
        line = lines[position]
        found = None
        if line.startswith(_NO_CAUSE):
            ignored = True
        elif line.endswith(_CHAIN):
            # httpx and others drop the traceback of what they wrap; its exception stands alone above the marker.
            found = _exception_above(lines, read_to, position)
        else:
            found = _exception_below(lines, position)
        if found is not None:
            if chain and not chained:
                yield _Chain(tuple(chain), prefix)
                chain = []
            if not ignored:
                chain.append(found.line)
                prefix = found.prefix
            chained = ignored = False
            position = read_to = max(found.end, position + 1)
        else:
            position += 1
        chained = chained or line.endswith(_CHAIN)
    if chain:
        yield _Chain(tuple(chain), prefix)


@dataclass(frozen=True, slots=True)
class _Found:
    line: ErrorLine
    end: int
    prefix: str


def _exception_below(lines: Sequence[str], position: int) -> _Found | None:
    """Return the exception that the traceback at a position ends in."""
    line = lines[position]
    if _SYNTAX.match(line) and position and lines[position - 1].startswith(" "):
        return _exception_at(lines, position, "")
    if heading := _TRACEBACK.fullmatch(line):
        # Launchers put "[rank1]: " before each line; a progress bar without a newline stands before the first one only.
        prefix = heading.group(1) if _has_prefix(lines, position + 1, heading.group(1)) else ""
        for below in range(position + 1, len(lines)):
            if _TRACEBACK.fullmatch(lines[below]):
                return None
            if found := _exception_at(lines, below, prefix):
                return found if found.line.message else _with_place(found, lines, below)
    elif _BOXED_TRACEBACK.match(line):
        for below in range(position + 1, len(lines) - 1):
            if lines[below].startswith(_BOX_END):
                return _exception_at(lines, below + 1, "")
    return None


def _exception_above(lines: Sequence[str], start: int, end: int) -> _Found | None:
    for position in range(end - 1, max(start, end - _MAX_MESSAGE_LINES) - 1, -1):
        found = _exception_at(lines, position, "")
        if found and _ANY_ERROR.search(found.line.exception_type):
            return found
    return None


def _exception_at(lines: Sequence[str], position: int, prefix: str) -> _Found | None:
    if not lines[position].startswith(prefix):
        return None
    match = _EXCEPTION.fullmatch(lines[position][len(prefix) :])
    if match is None:
        return None
    message = [match.group(2) or ""]
    position += 1
    while position < len(lines) and len(message) <= _MAX_CONTINUATION_LINES:
        continuation = lines[position].removeprefix(prefix)
        if not continuation[:1].isspace() or not continuation.strip() or _PROGRESS_BAR.match(continuation):
            break
        message.append(continuation.strip())
        position += 1
    return _Found(ErrorLine(match.group(1), " ".join(part for part in message if part)), position, prefix)


def _with_place(found: _Found, lines: Sequence[str], position: int) -> _Found:
    """Let an exception without a message, such as a bare assertion, say where it was raised."""
    for above in range(position - 1, max(-1, position - _MAX_MESSAGE_LINES), -1):
        if frame := _FRAME.match(lines[above].removeprefix(found.prefix)):
            code = lines[above + 1].removeprefix(found.prefix).strip() if above + 1 < position else ""
            place = f"at {frame.group(1)}, line {frame.group(2)}: {code}".rstrip(": ")
            return _Found(ErrorLine(found.line.exception_type, place), found.end, found.prefix)
    return found


def _has_prefix(lines: Sequence[str], position: int, prefix: str) -> bool:
    return bool(prefix) and position < len(lines) and lines[position].startswith(prefix + " ")
