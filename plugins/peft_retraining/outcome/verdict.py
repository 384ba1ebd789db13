"""The verdict on a finished attempt: by evidence, not by exit code alone (pure)."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from peft_retraining.errors import FailureClass
from peft_retraining.outcome.error_lines import ErrorLine, find_error_lines, last_line
from peft_retraining.outcome.evidence import Evidence
from peft_retraining.outcome.signatures import ResultState, Signature, Symptoms, built_in_signatures
from training_contract.result import TrainingResult
from training_contract.run_spec import RunSpec

MAX_REASON_CHARACTERS = 200
"""A reason is one line of a table."""

_SIGNALLED = range(129, 160)
_LOSS_NOT_FINITE = re.compile(r"\bmetrics\.\w+_loss is not finite\b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        succeeded: Whether there is an adapter that may be judged for publishing.
        failure_code: Stable name of the cause; empty after a success. Likewise below.
        failure_reason: The cause on one line, at most ``MAX_REASON_CHARACTERS``.
        failure_class: Who has to act; ``None`` after a success.
        retryable: Whether the same run may succeed when it is tried again.
        remedy: What to do about it.
    """

    succeeded: bool
    failure_code: str = ""
    failure_reason: str = ""
    failure_class: FailureClass | None = None
    retryable: bool = False
    remedy: str = ""


def judge(evidence: Evidence, spec: RunSpec | None, signatures: Sequence[Signature] | None = None) -> Outcome:
    """Judge an attempt.

    Args:
        evidence: All that it left behind.
        spec: What it was started with; ``None``: unknown, the result is not compared with it.
        signatures: Rows of the table, first match wins; ``None``: those of this package.
    """
    state, problem = _judge_result(evidence, spec) if evidence.exit_code == 0 else (None, "")
    if state is ResultState.ACCEPTED:
        return Outcome(succeeded=True)
    symptoms = _symptoms(evidence, state)
    for signature in built_in_signatures() if signatures is None else signatures:
        if signature.fits(symptoms):
            return _failed(signature, symptoms, evidence, problem)
    return _unknown(symptoms, evidence)


def _judge_result(evidence: Evidence, spec: RunSpec | None) -> tuple[ResultState, str]:
    """Say whether a trainer that ended with exit code 0 did its work, and if not, why."""
    result = evidence.result
    if result is None:
        if losses := _LOSS_NOT_FINITE.findall(evidence.result_problem):
            return ResultState.NOT_FINITE, "; ".join(losses)
        return (ResultState.INVALID if evidence.result_problem else ResultState.MISSING), evidence.result_problem
    return next(_objections(result, evidence, spec), (ResultState.ACCEPTED, ""))


def _objections(result: TrainingResult, evidence: Evidence, spec: RunSpec | None) -> Iterator[tuple[ResultState, str]]:
    if spec is not None and result.training_run_id != spec.training_run_id:
        yield ResultState.OF_ANOTHER_RUN, f"it is of the run {result.training_run_id}, not {spec.training_run_id}"
    if spec is not None and result.data_digest != spec.data.digest:
        yield ResultState.OF_ANOTHER_RUN, f"it was trained on the rows {result.data_digest}, not {spec.data.digest}"
    metrics = result.metrics
    if metrics.trained_token_count <= 0:
        yield ResultState.NOTHING_TRAINED, f"trained_token_count is {metrics.trained_token_count}"
    if evidence.adapter_problems:
        yield ResultState.ADAPTER_DAMAGED, "; ".join(evidence.adapter_problems)


def _symptoms(evidence: Evidence, state: ResultState | None) -> Symptoms:
    number = evidence.signal
    if number is None and evidence.exit_code in _SIGNALLED:
        # A shell in between tells a signal by its exit code.
        number = (evidence.exit_code or 0) - 128
    phase = evidence.last_phase or (evidence.failure.phase if evidence.failure else "")
    return Symptoms(
        exit_code=evidence.exit_code,
        signal=number,
        oom_killed=evidence.oom_killed,
        stop_requested=evidence.stop_requested,
        phase=str(phase),
        result=state,
        lines=_error_lines(evidence),
    )


def _error_lines(evidence: Evidence) -> tuple[ErrorLine, ...]:
    if evidence.runner_error:
        return find_error_lines(evidence.runner_error) or (ErrorLine("", last_line(evidence.runner_error)),)
    if evidence.failure and evidence.failure.exceptions:
        return tuple(ErrorLine(entry.type, entry.message) for entry in evidence.failure.exceptions)
    if lines := find_error_lines(evidence.stderr_end):
        return lines
    # Some programs print their traceback to stdout; there it counts only as the very last that was said.
    lines = find_error_lines(evidence.stdout_end)
    return lines if lines and last_line(evidence.stdout_end).startswith(lines[0].text[:80]) else ()


def _failed(signature: Signature, symptoms: Symptoms, evidence: Evidence, result_problem: str) -> Outcome:
    report = evidence.failure if evidence.failure and evidence.failure.exit_code == evidence.exit_code else None
    line = signature.line_in(symptoms)
    if signature.reason:
        reason = signature.reason.format_map(_words(symptoms, evidence, line, result_problem))
    elif line:
        reason = _with_root_cause(line, symptoms.lines)
    elif report:
        reason = report.message
    else:
        meaning = signature.name.replace("_", " ")
        words = _last_words(symptoms, evidence)
        reason = f"{meaning} (exit code {evidence.exit_code})" + (f": {words}" if words else "")
    own_remedy = report.remedy if report and report.failure_code == signature.name else ""
    return Outcome(
        succeeded=False,
        failure_code=signature.name,
        failure_reason=one_line(reason),
        failure_class=signature.failure_class,
        retryable=signature.retryable,
        remedy=own_remedy or signature.remedy,
    )


def _unknown(symptoms: Symptoms, evidence: Evidence) -> Outcome:
    words = _last_words(symptoms, evidence)
    said = f"the last it said: {words}" if words else "it said nothing"
    return Outcome(
        succeeded=False,
        failure_code="unknown",
        failure_reason=one_line(f"exit code {evidence.exit_code}, cause unknown; {said}"),
        failure_class=FailureClass.PLATFORM,
        # Nothing says that another try is in vain; how many there are is the user's to set.
        retryable=True,
        remedy="Read both streams of the attempt; when the cause is found, add a row for it to the failure signatures.",
    )


def _words(symptoms: Symptoms, evidence: Evidence, line: ErrorLine | None, result_problem: str) -> dict[str, str]:
    return {
        "line": line.text if line else "",
        "last_line": _last_words(symptoms, evidence) or "it said nothing",
        "message": evidence.failure.message if evidence.failure else "no report of the trainer's own",
        "exit_code": "unknown" if evidence.exit_code is None else str(evidence.exit_code),
        "signal": _signal_name(symptoms.signal),
        "phase": symptoms.phase.replace("_", " ") or "an unknown phase",
        "result_problem": result_problem,
    }


def _last_words(symptoms: Symptoms, evidence: Evidence) -> str:
    if symptoms.lines:
        return symptoms.lines[0].text
    return last_line(evidence.stderr_end) or last_line(evidence.stdout_end)


def _with_root_cause(line: ErrorLine, lines: Sequence[ErrorLine]) -> str:
    """Tell an error line and the root of its chain, neither of them cut off by the other."""
    root = lines[-1]
    if not line.exception_type or root.message == line.message:
        return line.text
    half = MAX_REASON_CHARACTERS // 2
    told, cause = one_line(line.text), one_line(f"(cause: {root.text})")
    told = one_line(told, limit=max(half, MAX_REASON_CHARACTERS - 1 - len(cause)))
    return f"{told} {one_line(cause, limit=MAX_REASON_CHARACTERS - 1 - len(told))}"


def _signal_name(number: int | None) -> str:
    if number is None:
        return "no signal"
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def one_line(text: str, limit: int = MAX_REASON_CHARACTERS) -> str:
    """Return a text as one line.

    Args:
        text: Any text; what cannot be printed is dropped.
        limit: Characters at most.
    """
    printable = "".join(character if character.isprintable() else " " for character in text)
    line = " ".join(printable.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
