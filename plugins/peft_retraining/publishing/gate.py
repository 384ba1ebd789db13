"""May an adapter be published, and does ``latest`` move to it? Decisions only: nothing is read or written here.

Today the interval decides; a comparison of candidate and current by their held-out losses would go into
``decide_alias``, which has both manifests.
"""

from __future__ import annotations

from dataclasses import dataclass

from peft_retraining.publishing.version_name import window_end
from training_contract.adapter_manifest import AdapterManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class AliasDecision:
    """Whether ``latest`` moves to a candidate.

    Attributes:
        move: ``True``: it moves.
        reason: Why, or why not, for people.
    """

    move: bool
    reason: str


def decide_alias(current: AdapterManifest | None, candidate: AdapterManifest) -> AliasDecision:
    """Decide whether ``latest`` moves to a candidate: an older interval never replaces a newer one.

    Args:
        current: The version that is ``latest``; ``None`` when there is no complete one.
        candidate: A complete version.
    """
    if current is None:
        return AliasDecision(move=True, reason="no complete version was latest")
    if current.version == candidate.version:
        return AliasDecision(move=False, reason="it already is latest")
    current_end, candidate_end = window_end(current), window_end(candidate)
    ends = f"its data window ends {candidate_end.isoformat()}"
    than = f"{current.version} (ends {current_end.isoformat()})"
    if candidate_end < current_end:
        return AliasDecision(move=False, reason=f"{ends}, before that of latest, {than}")
    if candidate_end == current_end:
        return AliasDecision(move=True, reason=f"{ends}, like that of latest, {than}, which it retrained")
    return AliasDecision(move=True, reason=f"{ends}, after that of latest, {than}")
