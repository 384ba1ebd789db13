"""Makes text that anybody may have printed fit to be read, logged and stored (pure)."""

from __future__ import annotations

import re

# Cut off at 64 parameters: a terminal's sequences are short, and a bound keeps hostile text linear.
_ANSI = re.compile(r"\x1b(?:\[[0-?]{0,64}[ -/]{0,8}[@-~]|\][^\x07\x1b\n]{0,1024}(?:\x07|\x1b\\)|[@-Z\\^_])")
# C0 without tab and newline, DEL, C1, the line separators, what changes the direction of text, and surrogates.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_GROUP_MARKER = re.compile(r"::(?=(?:end)?group::)")


def readable(text: str) -> str:
    r"""Return the text as a terminal would have left it, with every remaining control character spelled out.

    Colours are dropped, a line that was overwritten (``\r``, a progress bar) keeps its last state, other control
    characters become ``\x07`` and the like.
    """
    if "\x1b" in text:
        text = _ANSI.sub("", text)
    if "\r" in text:
        text = "\n".join(last_state(line).rstrip("\r") for line in text.split("\n"))
    return _CONTROL.sub(_spelled_out, text)


def last_state(line: str) -> str:
    """Return what the last carriage return of a line left to see; one at its end is kept, more may follow."""
    if "\r" not in line:
        return line
    states = line.split("\r")
    last = next((state for state in reversed(states) if state.strip()), "")
    return last + "\r" if line.endswith("\r") else last


def for_the_log(line: str) -> str:
    """Return a readable line that Airflow's log does not take for the begin or the end of a group."""
    return _GROUP_MARKER.sub(": :", line)


def _spelled_out(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"  # noqa: PLR2004  # one byte
