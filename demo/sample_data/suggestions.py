"""What an assistant suggests for a question: the right answer and some that are plausible but worse.

In comes a ``Request`` (``grammar.py``); out goes what the column ``suggestions`` holds, for ``build.py``.
"""

from __future__ import annotations

import random
from dataclasses import replace

from demo.sample_data.answers import action_for
from demo.sample_data.grammar import Request
from demo.sample_data.vocabulary import DOMAIN_BY_NAME, MOMENTS, NAMES_BY_DOMAIN, VALUES_BY_LIST

_SUGGESTION_COUNTS = (1, 1, 2, 2, 2, 3, 3, 3, 4)
_LIST_BY_SLOT = {
    "area": "area",
    "floor": "floor",
    "color": "color",
    "fan_mode": "fan_mode",
    "brightness": "brightness",
    "percentage": "fan_speed",
    "position": "position",
    "volume_level": "volume",
    "item": "todo_list_item",
    "search_query": "search_query",
    "message": "message",
    "minutes": "timer_minutes",
    "hours": "timer_hours",
    "seconds": "timer_seconds",
}
_VAGUE = (
    "Add {subject} to the dashboard so that it can be controlled by hand",
    "Send a notification about {subject} and wait for a confirmation",
    "Create a scene with {subject} and similar devices",
    "Show the history of {subject} of the last week",
)


def suggestions(request: Request, rng: random.Random) -> list[dict[str, str | float]]:
    """Return one to four suggestions in random order; the one with the highest confidence is the right answer."""
    right = str(action_for(request))
    wrong: list[str] = []
    wanted = rng.choice(_SUGGESTION_COUNTS) - 1
    while len(wrong) < wanted:
        candidate = _worse_answer(request, rng)
        if candidate not in (right, *wrong):
            wrong.append(candidate)
    entries: list[dict[str, str | float]] = [{"description": right, "confidence": rng.randint(80, 97) / 100}]
    entries += [{"description": text, "confidence": rng.randint(20, 70) / 100} for text in wrong]
    rng.shuffle(entries)
    return entries


def _worse_answer(request: Request, rng: random.Random) -> str:
    """Answer a slightly different question, or answer vaguely."""
    innermost = request.delayed or request
    swappable = [slot for slot in innermost.slots if slot in _LIST_BY_SLOT or slot == "name"]
    if not swappable or rng.random() < 0.25:
        return rng.choice(_VAGUE).format(subject=action_for(request).subject)
    slot = rng.choice(swappable)
    changed = replace(innermost, slots={**innermost.slots, slot: _another(slot, innermost, rng)})
    if request.when and rng.random() < 0.3:
        changed = replace(innermost, when=rng.choice(MOMENTS))
    return str(action_for(replace(request, delayed=changed) if request.delayed else changed))


def _another(slot: str, request: Request, rng: random.Random) -> str:
    if slot != "name":
        return rng.choice(VALUES_BY_LIST[_LIST_BY_SLOT[slot]])
    if "Timer" in request.intent:
        return rng.choice(VALUES_BY_LIST["timer_name"])
    return rng.choice(NAMES_BY_DOMAIN[DOMAIN_BY_NAME[request.slots["name"]]])
