"""The right answer to a question: what an assistant should do.

In comes a ``Request`` (``grammar.py``), out goes an ``Action``, for ``suggestions.py``. An answer names the device, the
place, the action and the value that the question asks for, and the service that does it, so that it follows from the
question and from nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from demo.sample_data.grammar import Request
from demo.sample_data.vocabulary import DOMAIN_BY_NAME

_GROUPS = {"light": "lights", "fan": "fans", "switch": "switches", "lock": "locks"}
_TURN_ON = {
    "cover": ("Open", "cover.open_cover"),
    "valve": ("Open", "valve.open_valve"),
    "lock": ("Lock", "lock.lock"),
    "scene": ("Activate", "scene.turn_on"),
    "script": ("Run", "script.turn_on"),
}
_TURN_OFF = {
    "cover": ("Close", "cover.close_cover"),
    "valve": ("Close", "valve.close_valve"),
    "lock": ("Unlock", "lock.unlock"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One thing that an assistant can do.

    Attributes:
        sentence: What it does, for people.
        service: What it calls.
        data: What it passes on, each as name and value.
        subject: What it is about, with an article.
    """

    sentence: str
    service: str
    data: Sequence[str]
    subject: str

    def __str__(self) -> str:
        return f"{self.sentence} ({', '.join((self.service, *self.data))})"


def action_for(request: Request) -> Action:
    """Return the right answer to a question."""
    if request.delayed is not None:
        inner = action_for(request.delayed)
        wait = _duration(request.slots)
        return replace(
            inner,
            sentence=f"Wait {wait}, then {inner.sentence[0].lower()}{inner.sentence[1:]}",
            data=(*inner.data, f"delay {wait}"),
        )
    action = _ACTIONS[request.intent](request)
    return replace(action, sentence=f"{action.sentence} {request.when}") if request.when else action


def _domain(slots: Mapping[str, str]) -> str:
    return DOMAIN_BY_NAME[slots["name"]] if "name" in slots else slots.get("domain", "")


def _place(slots: Mapping[str, str]) -> str:
    if "area" in slots:
        return f" in the {slots['area']}"
    return f" on the {slots['floor']} floor" if "floor" in slots else ""


def _subject(slots: Mapping[str, str]) -> str:
    """Name what a request is about: a device, a group of devices, or a place as a whole."""
    domain = _domain(slots)
    named = slots.get("name") or slots.get("device_class") or _GROUPS.get(domain)
    if named:
        kind = f" {domain}" if domain in ("scene", "script") else ""
        return f"the {named}{kind}{_place(slots)}"
    return f"the {slots['area']}" if "area" in slots else f"the {slots['floor']} floor"


def _target(slots: Mapping[str, str]) -> str:
    for scope in ("area", "floor"):
        if scope in slots:
            return f"{scope} {slots[scope]}"
    return f"entity {_domain(slots)}.{slots.get('name', 'all').replace(' ', '_')}"


def _duration(slots: Mapping[str, str]) -> str:
    parts = [f"{slots[unit]} {unit}" for unit in ("hours", "minutes", "seconds") if unit in slots]
    return " and ".join(parts)


def _turn(verbs: Mapping[str, tuple[str, str]], usual: str) -> Callable[[Request], Action]:
    def describe(request: Request) -> Action:
        domain = _domain(request.slots)
        verb, service = verbs.get(domain, (usual, f"{domain}.{usual.lower().replace(' ', '_')}"))
        subject = _subject(request.slots)
        return Action(sentence=f"{verb} {subject}", service=service, data=(_target(request.slots),), subject=subject)

    return describe


def _setting(quality: str, slot: str, unit: str, service: str, field: str) -> Callable[[Request], Action]:
    def describe(request: Request) -> Action:
        subject, value = _subject(request.slots), request.slots[slot]
        return Action(
            sentence=f"Set the {quality} of {subject} to {value}{unit}",
            service=service,
            data=(_target(request.slots), f"{field} {value}"),
            subject=subject,
        )

    return describe


_LIGHT_SETTINGS = {
    "brightness": _setting("brightness", "brightness", " percent", "light.turn_on", "brightness"),
    "color": _setting("color", "color", "", "light.turn_on", "color"),
    "temperature": _setting("color temperature", "temperature", " kelvin", "light.turn_on", "kelvin"),
}


def _light(request: Request) -> Action:
    return next(describe(request) for slot, describe in _LIGHT_SETTINGS.items() if slot in request.slots)


def _position(request: Request) -> Action:
    domain = _domain(request.slots)
    return _setting("position", "position", " percent", f"{domain}.set_{domain}_position", "position")(request)


def _volume_step(request: Request) -> Action:
    subject, step = _subject(request.slots), request.slots["volume_step"]
    verb, service = ("Lower", "volume_down") if step.startswith("-") else ("Raise", "volume_up")
    amount = step.lstrip("-")
    return Action(
        sentence=f"{verb} the volume of {subject} by {amount} percent",
        service=f"media_player.{service}",
        data=(_target(request.slots), f"step {amount}"),
        subject=subject,
    )


def _media(verb: str, service: str) -> Callable[[Request], Action]:
    def describe(request: Request) -> Action:
        slots = {"domain": "media_player", **request.slots}
        subject = f"the {slots['name']}" if "name" in slots else f"the music{_place(slots)}"
        return Action(sentence=f"{verb} {subject}", service=service, data=(_target(slots),), subject=subject)

    return describe


def _play(request: Request) -> Action:
    slots = request.slots
    what = " ".join(slots[slot] for slot in ("media_class", "search_query") if slot in slots)
    device = f" on the {slots['name']}" if "name" in slots else ""
    return Action(
        sentence=f"Play {what}{device}{_place(slots)}",
        service="media_player.play_media",
        data=(_target(slots),),
        subject=what,
    )


def _timer(pattern: str, service: str) -> Callable[[Request], Action]:
    def describe(request: Request) -> Action:
        slots = request.slots
        timer = f"{slots['name']} timer" if "name" in slots else f"timer{_place(slots)}"
        time = _duration(slots)
        return Action(
            sentence=pattern.format(timer=timer, time=time), service=service, data=(f"duration {time}",),
            subject=f"the {timer}",
        )  # fmt: skip

    return describe


def _list(pattern: str, service: str) -> Callable[[Request], Action]:
    def describe(request: Request) -> Action:
        name, item = request.slots.get("name", "shopping"), request.slots["item"]
        return Action(
            sentence=pattern.format(item=item, name=name),
            service=service,
            data=(f"entity todo.{name.replace(' ', '_')}", f"item {item}"),
            subject=f"the {name} list",
        )

    return describe


_STATE_QUESTIONS = {
    "any": "Check whether any of {subject} are {state}",
    "all": "Check whether all of {subject} are {state}",
    "which": "List those of {subject} that are {state}",
    "how_many": "Count those of {subject} that are {state}",
    "one_yesno": "Check whether {subject} is {state}",
}


def _state(request: Request) -> Action:
    subject, state, domain = _subject(request.slots), request.slots.get("state"), _domain(request.slots)
    if state is None:
        sentence, service = f"Report the state of {subject}", f"{domain}.state"
    else:
        sentence = _STATE_QUESTIONS[request.response].format(subject=subject, state=state)
        service = f"{domain}.is_{state}"
    return Action(sentence=sentence, service=service, data=(_target(request.slots),), subject=subject)


def _report_temperature(request: Request) -> Action:
    subject = _subject(request.slots)
    return Action(
        sentence=f"Report the current temperature of {subject}",
        service="climate.current_temperature",
        data=(_target(request.slots),),
        subject=subject,
    )


def _clean(request: Request) -> Action:
    name = request.slots.get("name", "vacuum cleaner")
    return Action(
        sentence=f"Clean the {request.slots['area']} with the {name}",
        service="vacuum.clean_area",
        data=(_target(request.slots),),
        subject=f"the {name}",
    )


def _announce(request: Request) -> Action:
    return Action(
        sentence=f"Announce on every speaker that {request.slots['message']}",
        service="assist_satellite.announce",
        data=("entity assist_satellite.all",),
        subject="the announcement",
    )


_ACTIONS: Mapping[str, Callable[[Request], Action]] = {
    "HassTurnOn": _turn(_TURN_ON, "Turn on"),
    "HassTurnOff": _turn(_TURN_OFF, "Turn off"),
    "HassLightSet": _light,
    "HassClimateSetTemperature": _setting(
        "temperature", "temperature", " degrees", "climate.set_temperature", "temperature"
    ),
    "HassClimateSetFanMode": _setting("fan mode", "fan_mode", "", "climate.set_fan_mode", "fan_mode"),
    "HassClimateGetTemperature": _report_temperature,
    "HassFanSetSpeed": _setting("fan speed", "percentage", " percent", "fan.set_percentage", "percentage"),
    "HassSetPosition": _position,
    "HassSetVolume": _setting("volume", "volume_level", " percent", "media_player.volume_set", "volume"),
    "HassSetVolumeRelative": _volume_step,
    "HassMediaPause": _media("Pause", "media_player.media_pause"),
    "HassMediaUnpause": _media("Resume", "media_player.media_play"),
    "HassMediaSearchAndPlay": _play,
    "HassStartTimer": _timer("Start the {timer} for {time}", "timer.start"),
    "HassIncreaseTimer": _timer("Add {time} to the {timer}", "timer.change"),
    "HassDecreaseTimer": _timer("Take {time} off the {timer}", "timer.change"),
    "HassShoppingListAddItem": _list("Add {item} to the {name} list", "todo.add_item"),
    "HassListAddItem": _list("Add {item} to the {name} list", "todo.add_item"),
    "HassListCompleteItem": _list("Check off {item} on the {name} list", "todo.complete_item"),
    "HassGetState": _state,
    "HassVacuumCleanArea": _clean,
    "HassBroadcast": _announce,
}
