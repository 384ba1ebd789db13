"""Which prompts judge the adapter."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from peft_retraining.snapshots.heldout import heldout_prompts, normalise_prompt

PROMPTS = st.lists(st.text(min_size=1, max_size=20), min_size=0, max_size=60)


@given(PROMPTS, st.floats(0.01, 0.5))
def test_there_is_always_something_to_train_on_and_something_to_judge_with(prompts: list[str], fraction: float) -> None:
    distinct = {normalise_prompt(prompt) for prompt in prompts}
    heldout = heldout_prompts(prompts, fraction)

    assert heldout <= distinct
    if len(distinct) >= 2:
        assert 0 < len(heldout) < len(distinct)
    else:
        assert not heldout


def test_about_the_asked_share_is_held_out() -> None:
    heldout = heldout_prompts([f"question {number}" for number in range(2000)], 0.1)

    assert 160 <= len(heldout) <= 240


def test_a_prompt_stays_on_its_side_when_others_come_and_go() -> None:
    some = [f"question {number}" for number in range(500)]
    more = some[100:] + [f"another {number}" for number in range(500)]

    before, after = heldout_prompts(some, 0.1), heldout_prompts(more, 0.1)

    assert {prompt for prompt in before if prompt in more} == {prompt for prompt in after if prompt in some}


def test_the_same_question_in_another_spelling_is_on_the_same_side() -> None:
    assert normalise_prompt("  Turn ON\tthe light ") == normalise_prompt("turn on the LIGHT")
