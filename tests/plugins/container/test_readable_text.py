from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from peft_retraining.container.readable_text import for_the_log, last_state, readable


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        pytest.param("plain\ttext\n", "plain\ttext\n", id="plain"),
        pytest.param("\x1b[1;31mred\x1b[0m", "red", id="colours"),
        pytest.param("\x1b]0;title\x07text", "text", id="window title"),
        pytest.param("\x1b[", "\\x1b[", id="torn sequence"),
        pytest.param("bell\x07 nul\x00", "bell\\x07 nul\\x00", id="control characters"),
        pytest.param("one\u2028two", "one\\u2028two", id="line separator"),
        pytest.param("\u202etxt.exe", "\\u202etxt.exe", id="change of direction"),
        pytest.param("\udcff", "\\udcff", id="surrogate"),
        pytest.param("one\r\ntwo\r\n", "one\ntwo\n", id="line ends of another system"),
        pytest.param("\r 10%\r 20%\r 30%\ndone", " 30%\ndone", id="progress bar"),
        pytest.param(" 10%\r 20%\r", " 20%", id="progress bar that goes on"),
        pytest.param("emoji 🙂 and שלום", "emoji 🙂 and שלום", id="other scripts"),
    ],
)
def test_text_is_left_as_a_terminal_would_show_it(printed: str, expected: str) -> None:
    assert readable(printed) == expected


@given(st.text(st.characters(codec=None, exclude_categories=())))
@example("\x1b\x1b[0m[31m")
@settings(deadline=None)
def test_readable_text_has_no_control_characters_and_stays_as_it_is(text: str) -> None:
    once = readable(text)

    assert not [c for c in once if c not in "\t\n" and unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    assert readable(once) == once


@pytest.mark.parametrize("marker", ["::group::name", "x ::endgroup::", ":::group::", "::group::::endgroup::"])
def test_a_printed_group_marker_is_none_in_the_log(marker: str) -> None:
    shown = for_the_log(marker)

    assert "::group::" not in shown
    assert "::endgroup::" not in shown


def test_a_blank_overwriting_does_not_hide_the_last_state() -> None:
    assert last_state("50%\r   \r") == "50%\r"
