from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from peft_retraining.outcome.error_lines import find_error_lines, last_line

HEADING = "Traceback (most recent call last):"
CAUSE = "\n\nThe above exception was the direct cause of the following exception:\n\n"
FRAME = '  File "train.py", line 7, in main\n    step()\n'


def texts(output: str) -> list[str]:
    return [line.text for line in find_error_lines(textwrap.dedent(output))]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        pytest.param(f"{HEADING}\n{FRAME}KeyError: 'x'\n", ["KeyError: 'x'"], id="plain"),
        pytest.param(
            f"{HEADING}\n{FRAME}torch.OutOfMemoryError: CUDA out of memory.\nexit code 61\n",
            ["torch.OutOfMemoryError: CUDA out of memory."],
            id="something printed after it",
        ),
        pytest.param(
            f"{HEADING}\n{FRAME}RuntimeError: Error(s) in loading:\n\tsize mismatch for a\n\tsize mismatch for b\n",
            ["RuntimeError: Error(s) in loading: size mismatch for a size mismatch for b"],
            id="message of several lines",
        ),
        pytest.param(
            f" 17%|█▋        | 2/12{HEADING}\n{FRAME}ValueError: bad\n 17%|█▋        | 2/12\n",
            ["ValueError: bad"],
            id="beside a progress bar",
        ),
        pytest.param(
            f"{HEADING}\n{FRAME}OSError: root{CAUSE}{HEADING}\n{FRAME}RuntimeError: outcome\n",
            ["RuntimeError: outcome", "OSError: root"],
            id="chain",
        ),
        pytest.param(
            f"ssl.ConnectError: certificate{CAUSE}{HEADING}\n{FRAME}OSError: no connection\n",
            ["OSError: no connection", "ssl.ConnectError: certificate"],
            id="cause whose traceback was dropped",
        ),
        pytest.param(
            f"{HEADING}\n{FRAME}ConnectionError: survived\nall well again\n{HEADING}\n{FRAME}KeyError: 'x'\n",
            ["KeyError: 'x'"],
            id="earlier traceback that was survived",
        ),
        pytest.param(
            f"{HEADING}\n{FRAME}KeyError: 'x'\nException ignored in: <f>\n{HEADING}\n{FRAME}OSError: closing\n",
            ["KeyError: 'x'"],
            id="noise of the shutdown",
        ),
        pytest.param(
            f"Exception in thread prefetch:\n{HEADING}\n{FRAME}INFO:root:waiting\nEOFError: torn\n"
            f"{HEADING}\n{FRAME}_queue.Empty\n",
            ["EOFError: torn"],
            id="thread whose failure shows as an empty queue",
        ),
        pytest.param(
            f"[rank1]: {HEADING}\n[rank1]:   File \"a.py\", line 1\n[rank1]: KeyError: 'x'\n"
            f'[rank0]: {HEADING}\n[rank0]:   File "a.py", line 1\n[rank0]: RuntimeError: peer gone\n'
            f"{HEADING}\n{FRAME}torch.elastic.ChildFailedError: \n====\n",
            ["KeyError: 'x'"],
            id="first of several processes",
        ),
        pytest.param(
            f"{HEADING}\n{FRAME}subprocess.CalledProcessError: Command died with <Signals.SIGKILL: 9>.\n",
            ["subprocess.CalledProcessError: Command died with <Signals.SIGKILL: 9>."],
            id="messenger without a message to bring",
        ),
        pytest.param(
            f"{HEADING}\n{FRAME}AssertionError\n", ["AssertionError: at train.py, line 7: step()"], id="bare assertion"
        ),
        pytest.param(
            "  File \"train.py\", line 3\n    f(\n     ^\nSyntaxError: '(' was never closed\n",
            ["SyntaxError: '(' was never closed"],
            id="syntax error",
        ),
        pytest.param(
            "╭─────── Traceback (most recent call last) ───────╮\n│ x = KeyError: 'no' │\n╰──────╯\nKeyError: 'yes'\n",
            ["KeyError: 'yes'"],
            id="boxed traceback",
        ),
        pytest.param(f"{HEADING}\n{FRAME}", [], id="traceback that was cut off"),
    ],
)
def test_exceptions_are_found_where_they_end_a_traceback(output: str, expected: list[str]) -> None:
    assert texts(output) == expected


@pytest.mark.parametrize(
    "line",
    [
        "train.py: error: argument --max_steps: invalid int value: '1e3'",
        "/opt/bin/python: No module named peft_trainer",
        "python: can't open file '/x.py': [Errno 2] No such file or directory",
        "python: error while loading shared libraries: libz.so.1: cannot open shared object file",
        "sh: 1: pyhton: not found",
        "bash: line 1: pyhton: command not found",
        "train.sh: line 5:    17 Killed                  python train.py",
        "docker: Error response from daemon: pull access denied for x.",
        "ERROR: No matching distribution found for x",
        "Fatal Python error: Segmentation fault",
        "terminate called after throwing an instance of 'c10::Error'",
        "  what():  CUDA error: device-side assert triggered",
        "The trainer cannot be started: python: No such file or directory",
        "Segmentation fault (core dumped)",
    ],
)
def test_last_words_of_programs_are_found(line: str) -> None:
    assert texts(f"some log line\n{line}\n\n") == [line.strip()]


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: CUDA out of memory was avoided by offloading",
        "UserWarning: RuntimeError: CUDA out of memory",
        "sample: User: why does my job print RuntimeError: CUDA out of memory?",
        "INFO train No space left on device is what users ask about",
        "ConnectionError: this is a row of the training data",
        "{'loss': 2.1, 'note': 'Killed'}",
        "Killed by Death is a song",
        "2026-11-23 02:00:00 ERROR retrying after a timeout",
    ],
)
def test_the_same_words_elsewhere_are_just_words(line: str) -> None:
    assert texts(f"{line}\n") == []


def test_a_traceback_outranks_last_words() -> None:
    assert texts(f"{HEADING}\n{FRAME}KeyError: 'x'\nERROR: giving up\n") == ["KeyError: 'x'"]


@given(
    st.lists(
        st.sampled_from(
            [
                HEADING,
                FRAME,
                "KeyError: 'x'",
                "",
                "[rank0]: ",
                "The above exception was the direct cause of the following exception:",
                "╭─ Traceback (most recent call last) ─╮",
                "╰─╯",
                "SyntaxError: x",
                " y",
            ]
        )
        | st.text()
    )
)
@settings(deadline=None)
def test_any_text_is_read(parts: list[str]) -> None:
    for line in find_error_lines("\n".join(parts)):
        assert "\n" not in line.text


def test_the_last_line_that_says_something() -> None:
    assert last_line("one\ntwo \n \n\n") == "two"
    assert last_line("") == ""
