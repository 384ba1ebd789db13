"""Real questions: drawn from Home Assistant's English grammar, and understood by Home Assistant's own recogniser.

In comes the grammar of ``home-assistant-intents``; out go ``Request`` values, a question with what it asks for, which
``answers.py`` answers. A question is kept only when the recogniser reads the intent that it was drawn for. Needs
``hassil`` and ``home-assistant-intents`` (requirements/sample-data.txt).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hassil import Intents, TextSlotList, parse_sentence, recognize_best
from hassil.expression import (
    Alternative,
    Expression,
    Group,
    ListReference,
    Permutation,
    RuleReference,
    Sentence,
    TextChunk,
)
from hassil.intents import IntentData, SlotList
from home_assistant_intents import get_intents

from demo.sample_data.vocabulary import AREAS, DOMAIN_BY_NAME, FLOORS, MOMENTS, REPETITIONS, VALUES_BY_LIST

INTENT_WEIGHTS: Mapping[str, int] = {
    "HassTurnOn": 16,
    "HassTurnOff": 16,
    "HassLightSet": 16,
    "HassClimateSetTemperature": 8,
    "HassFanSetSpeed": 5,
    "HassSetPosition": 7,
    "HassSetVolume": 6,
    "HassSetVolumeRelative": 4,
    "HassStartTimer": 12,
    "HassIncreaseTimer": 4,
    "HassDecreaseTimer": 3,
    "HassShoppingListAddItem": 2,
    "HassListAddItem": 5,
    "HassListCompleteItem": 3,
    "HassMediaSearchAndPlay": 7,
    "HassMediaPause": 2,
    "HassMediaUnpause": 1,
    "HassGetState": 14,
    "HassClimateGetTemperature": 2,
    "HassClimateSetFanMode": 3,
    "HassVacuumCleanArea": 2,
    "HassBroadcast": 2,
}
"""How often each intent is drawn, relative to the others."""

DEVICE_INTENTS = frozenset(
    {"HassTurnOn", "HassTurnOff", "HassLightSet", "HassClimateSetTemperature", "HassFanSetSpeed", "HassSetPosition",
     "HassSetVolume"}
)  # fmt: skip
"""Intents that make sense later as well: after a delay, at a time, at an event."""

_NARROWED_RULES = {
    "the": "(the|the|the|my)",
    "in": "in",
    "all": "all [of] the",
    "any": "any [of the]",
    "light": "(lights|lighting|lamps)",
    "lockable": "locks",
    "turn": "(turn|switch)",
    "set": "(set|change|turn)",
    "open": "(open [up]|raise)",
    "close": "(close|shut|lower)",
    "everywhere": "(everywhere|in the (whole|entire) (house|home|apartment))",
    "numeric_value_set": "(set|change|turn [(up|down)]|increase|decrease)",
    "what_is": "(what's|what is|tell me)",
}
"""Rules of the grammar cut down to what people say most; each is a part of the original, repetition is weight."""

_NARROWED_TEMPLATES = (
    (re.compile(r"\( \|-\)(hour|minute|second)\[s\] timer"), r"( |-)\1 timer"),
    (re.compile(r"\( \|-\)(hour|minute|second)\[s\]"), r" \1s"),
    (re.compile(r"\[<the>\] \{area\} \[<the>\] \{name\}"), "[<the>] {area} {name}"),
    (re.compile(r"\[on(\|for)?\] (?=\[<the>\])"), "on "),
    (re.compile(r"\[<the>\]"), "[the|the|the|my]"),
    (re.compile(r"\[(<set>|<turn>|<numeric_value_set>|<in>|in|of)\]"), r"\1"),
    (re.compile(r"\[to\] \{"), "to {"),
    (re.compile(r"fan\[s\]"), "fans"),
    (re.compile(r"switch\[es\]"), "switches"),
    (re.compile(r"\[\(\[ \]°\)\|\( degree\[s\]\)\]"), "[( degrees|°)]"),
)
"""Likewise for templates: singular and plural agree, no article stands twice, verb and preposition are there."""

_UNWANTED_TEMPLATE = re.compile(
    r"\{name\} (\[?\(?)?<light>|<light> \{floor\}|conversation_command|start_|\{name\} \{bs_|<here>"
)  # fmt: skip
_CLUMSY = re.compile(r"\b(the|my|of) (the|my)\b|\b(\w+) \3\b")
_POLITE = (*[""] * 6, "please", "please", "can you", "can you", "could you", "would you")
_VERBS = frozenset(
    {"activate", "add", "adjust", "announce", "broadcast", "change", "check", "clean", "close", "complete", "create",
     "deactivate", "decrease", "increase", "light", "lock", "lower", "open", "pause", "play", "put", "raise", "remove",
     "resume", "run", "set", "shut", "start", "switch", "take", "turn", "unlock", "unpause", "vacuum"}
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A question and what Home Assistant understands by it.

    Attributes:
        text: The question.
        intent: Name of the intent, as Home Assistant names it.
        response: Which of the intent's responses fits; tells "any", "all", "which" and "how many" apart.
        slots: What is asked for, by slot; numbers without a unit.
        when: When it shall happen, in the question's own words; empty: now.
        delayed: What shall happen after the time in ``slots``; ``None`` for anything but a delayed command.
    """

    text: str
    intent: str
    response: str
    slots: Mapping[str, str]
    when: str = ""
    delayed: Request | None = None


class Grammar:
    """Home Assistant's English grammar over the names of the sample home."""

    def __init__(self) -> None:
        grammar = get_intents("en")
        if grammar is None:
            raise LookupError("home-assistant-intents has no English grammar; expected the pinned version")
        self._intents = Intents.from_dict(grammar)
        self._lists: dict[str, SlotList] = {
            "area": TextSlotList.from_strings(AREAS, name="area"),
            "floor": TextSlotList.from_strings(FLOORS, name="floor"),
            "name": TextSlotList.from_tuples(
                [(name, name, {"domain": domain}) for name, domain in DOMAIN_BY_NAME.items()], name="name"
            ),
        }
        self._rules = self._intents.expansion_rules | {
            name: parse_sentence(text) for name, text in _NARROWED_RULES.items()
        }
        self._blocks = {intent: self._usable_blocks(intent) for intent in INTENT_WEIGHTS}

    def draw(self, rng: random.Random) -> Request:
        """Draw one question that is understood as it was meant."""
        while True:
            intent = rng.choices(list(INTENT_WEIGHTS), list(INTENT_WEIGHTS.values()))[0]
            request = self._draw_delayed(rng) if intent == "HassStartTimer" and rng.random() < 0.7 else None
            request = request or self._draw_command(intent, rng)
            if request is not None:
                return _with_moment(request, rng) if intent in DEVICE_INTENTS and rng.random() < 0.3 else request

    def understand(self, text: str) -> Request | None:
        """Return what Home Assistant's recogniser reads in a question, or ``None``."""
        found = recognize_best(text, self._intents, slot_lists=self._lists, best_slot_name="name")
        if found is None:
            return None
        slots = {name: _slot_text(entity.value, entity.text_clean) for name, entity in found.entities.items()}
        delayed = self.understand(slots["conversation_command"]) if "conversation_command" in slots else None
        return Request(text=text, intent=found.intent.name, response=found.response or "", slots=slots, delayed=delayed)

    def _draw_command(self, intent: str, rng: random.Random) -> Request | None:
        block, templates = rng.choice(self._blocks[intent])
        words = " ".join(self._walk(rng.choice(templates).expression, block, rng).split())
        if _CLUMSY.search(words):
            return None
        polite = rng.choice(_POLITE) if words.split()[0] in _VERBS else ""
        request = self.understand(f"{polite} {words}".strip())
        return request if request and request.intent == intent and _values_are_known(request) else None

    def _draw_delayed(self, rng: random.Random) -> Request | None:
        command = self._draw_command(rng.choice(sorted(DEVICE_INTENTS)), rng)
        if command is None:
            return None
        unit = rng.choice(("minutes", "minutes", "hours", "seconds"))
        words = f"{rng.choice(('in', 'after'))} {rng.choice(VALUES_BY_LIST[f'timer_{unit}'])} {unit}"
        text = rng.choice((f"{command.text} {words}", f"{words} {command.text}"))
        request = self.understand(text)
        expected = replace(command, text="")
        if request is None or request.delayed is None or replace(request.delayed, text="") != expected:
            return None
        return request

    def _usable_blocks(self, intent: str) -> Sequence[tuple[IntentData, Sequence[Sentence]]]:
        blocks = []
        for block in self._intents.intents[intent].data:
            needs_a_room = isinstance(block.requires_context.get("area"), dict)
            templates = [] if needs_a_room else [
                sentence for text in block.sentence_texts if (sentence := self._usable_template(text, block))
            ]  # fmt: skip
            if templates:
                blocks.append((block, templates))
        if not blocks:
            raise LookupError(f"the grammar has no usable template for {intent}; expected the pinned version")
        return blocks

    def _usable_template(self, text: str, block: IntentData) -> Sentence | None:
        for pattern, narrowed in _NARROWED_TEMPLATES:
            text = pattern.sub(narrowed, text)
        sentence = parse_sentence(text, keep_text=True)
        lists = set(sentence.list_names(self._rules))
        if _UNWANTED_TEMPLATE.search(text) or not lists or not lists <= VALUES_BY_LIST.keys() | {"name"}:
            return None
        return sentence if "name" not in lists or _names_for(block) else None

    def _walk(self, expression: Expression, block: IntentData, rng: random.Random) -> str:
        """Write out one of the sentences that a template stands for, each branch as likely as the other."""
        match expression:
            case TextChunk():
                text = expression.original_text
            case Alternative():
                text = self._walk(rng.choice(expression.items), block, rng)
            case Permutation():
                items = rng.sample(expression.items, len(expression.items))
                text = " ".join(self._walk(item, block, rng) for item in items)
            case Group():
                text = "".join(self._walk(item, block, rng) for item in expression.items)
            case RuleReference(rule_name="is"):
                text = "is" if _names_for(block) else "are"
            case RuleReference():
                text = self._walk(self._rules[expression.rule_name].expression, block, rng)
            case ListReference(list_name="name"):
                text = rng.choice(_names_for(block))
            case ListReference():
                text = rng.choice(VALUES_BY_LIST[expression.list_name])
            case _:
                raise TypeError(f"{type(expression).__name__} is no known part of a template")
        return text


def _names_for(block: IntentData) -> Sequence[str]:
    domains = block.requires_context.get("domain", ())
    return [name for name, domain in DOMAIN_BY_NAME.items() if domain in domains]


def _slot_text(value: object, text: str) -> str:
    return f"{value:g}" if isinstance(value, int | float) else text or str(value)


def _values_are_known(request: Request) -> bool:
    wildcards = {"search_query", "item", "message"} & request.slots.keys()
    if "name" in request.slots and "Timer" in request.intent:
        wildcards.add("name")
    known = {value for values in VALUES_BY_LIST.values() for value in values}
    return all(request.slots[name] in known for name in wildcards)


def _with_moment(request: Request, rng: random.Random) -> Request:
    """Add when it shall happen: the one part of a question that the grammar does not have."""
    clock = f"at {rng.randrange(5, 24)}:{rng.randrange(0, 60, 5):02d}"
    when = rng.choice((rng.choice(MOMENTS), f"{clock} {rng.choice(REPETITIONS)}", f"{rng.choice(REPETITIONS)} {clock}"))
    text = f"{request.text} {when}"
    return request if _CLUMSY.search(text) else replace(request, text=text, when=when)
