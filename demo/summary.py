"""What the demo says at its end."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from peft_retraining.run_store.records import TrainingRun

_WIDTH = 100


@dataclass(frozen=True)
class AnsweredQuestion:
    """A held-out question with the right answer and the answers of base and adapter."""

    prompt: str
    expected: str
    base_answer: str
    adapter_answer: str


def summary(run: TrainingRun, questions: list[AnsweredQuestion], *, adapter: str, seconds: float) -> str:
    """Return the demo's last words.

    Args:
        run: The record of the run.
        questions: Answered by the models loaded from the published files.
        adapter: Where ``latest`` is, as a user in the repository would type it.
        seconds: Duration of the demo.
    """
    facts = run.facts
    base_loss, adapter_loss = facts.base_heldout_loss or 0.0, facts.adapter_heldout_loss or 0.0
    change = (adapter_loss - base_loss) / base_loss if base_loss else 0.0
    refused = ", ".join(f"{reason} {count}" for reason, count in (facts.refused_row_counts or {}).items()) or "none"
    rows = [
        ("rows used", f"{facts.train_row_count} to train on, {facts.heldout_row_count} held out"),
        ("rows refused", f"{facts.refused_row_count} ({refused})"),
        ("held-out loss", f"base {base_loss:.3f}, adapter {adapter_loss:.3f} ({change:+.0%})"),
        ("adapter", f"{facts.peft_type}, version {facts.adapter_version}"),
        ("published at", adapter),
        ("took", f"{seconds / 60:.1f} minutes, set-up apart"),
    ]
    lines = ["", "=" * _WIDTH, *(f"{name:<14}{value}" for name, value in rows), "-" * _WIDTH]
    for question in questions:
        lines += [
            *_paragraph("question", question.prompt),
            *_paragraph("right", question.expected),
            *_paragraph("base", question.base_answer),
            *_paragraph("adapter", question.adapter_answer),
            "-" * _WIDTH,
        ]
    lines += [
        "See this run in the Airflow UI:   make up      (prints address, user and password)",
        "See the record of all runs:       make runs",
    ]
    return "\n".join(lines)


def _paragraph(name: str, text: str) -> list[str]:
    shown = " ".join(text.split()) or "(nothing)"
    return textwrap.wrap(
        shown, _WIDTH, initial_indent=f"{name:<14}", subsequent_indent=" " * 14, max_lines=3, placeholder=" ..."
    )
