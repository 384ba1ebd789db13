"""Which prompts judge the adapter and are never trained on (pure)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable


def heldout_prompts(prompts: Iterable[str], fraction: float) -> frozenset[str]:
    """Choose the held-out prompts by their own text, so that a prompt stays on its side night after night.

    Rows with the same prompt are on the same side, upper and lower case and blanks apart: a question that was trained
    on cannot judge. At least one prompt is held out and at least one is not, as long as there are two.

    Args:
        prompts: The prompts of all usable rows.
        fraction: Share to hold out, between 0 and 1.

    Returns:
        Normalised prompts; ask with ``normalise_prompt``.
    """
    ranks = {text: _rank(text) for text in {normalise_prompt(prompt) for prompt in prompts}}
    chosen = {text for text, rank in ranks.items() if rank < fraction}
    if not ranks or len(ranks) == 1:
        return frozenset()
    if not chosen:
        chosen = {min(ranks, key=ranks.__getitem__)}
    elif len(chosen) == len(ranks):
        chosen.discard(max(ranks, key=ranks.__getitem__))
    return frozenset(chosen)


def normalise_prompt(prompt: str) -> str:
    """Bring prompts that ask the same in another spelling to one text."""
    return " ".join(prompt.casefold().split())


def _rank(text: str) -> float:
    """Spread texts evenly over 0 to 1."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
