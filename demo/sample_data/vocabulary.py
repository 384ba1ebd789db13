"""What the sample home is made of: rooms, devices, lists, things to say, and the numbers that people ask for.

The grammar of the questions comes from elsewhere (``grammar.py``); these are the values of its slots. Every list is
ordered, so that the recipe draws the same values each time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

AREAS: Sequence[str] = (
    "living room", "kitchen", "bedroom", "guest room", "bathroom", "hallway", "study", "nursery", "dining room",
    "garage", "cellar", "attic", "laundry room", "conservatory", "pantry", "playroom", "library", "workshop",
    "studio", "gym", "balcony", "patio", "garden", "greenhouse", "sunroom", "home theater", "utility room",
    "mudroom", "porch", "music room", "entrance", "sauna", "tool shed", "wine room", "breakfast nook",
    "dressing room",
)  # fmt: skip

FLOORS: Sequence[str] = ("basement", "mezzanine", "loft", "penthouse", "rooftop", "annex")

NAMES_BY_DOMAIN: Mapping[str, Sequence[str]] = {
    "light": (
        "reading lamp", "ceiling light", "floor lamp", "desk lamp", "bedside lamp", "string lights", "chandelier",
        "spotlight", "wall sconce", "salt lamp", "strip light", "pendant lamp", "vanity light", "lava lamp",
        "night light", "picture light", "lantern", "globe lamp", "disco ball", "grow light",
    ),
    "switch": (
        "coffee maker", "kettle", "toaster", "dehumidifier", "space heater", "aquarium pump", "fountain",
        "christmas tree", "towel warmer", "printer", "phone charger", "popcorn machine", "rice cooker",
        "slow cooker", "electric blanket", "battery charger",
    ),
    "fan": ("ceiling fan", "tower fan", "exhaust fan", "box fan", "air purifier", "desk fan", "ventilator"),
    "cover": (
        "roller blind", "roman shade", "velvet curtain", "canvas awning", "skylight", "venetian blind",
        "pergola roof", "projector screen", "side gate", "cat flap", "blackout curtain", "storm shutter",
    ),
    "lock": ("front door", "back door", "wine cabinet", "bike shed", "medicine cabinet", "mailbox", "gun safe"),
    "media_player": (
        "soundbar", "turntable", "smart tv", "bluetooth speaker", "projector", "radio", "game console", "stereo",
        "jukebox",
    ),
    "climate": ("thermostat", "heat pump", "underfloor heating", "air conditioner", "radiator", "mini split", "boiler"),
    "vacuum": ("robot vacuum", "dusty", "mop robot", "floor bot"),
    "valve": ("sprinkler valve", "water main", "drip irrigation", "gas valve"),
    "scene": (
        "movie night", "romantic dinner", "good morning", "bedtime", "party time", "rainy day", "game night",
        "yoga class", "deep focus", "candlelight",
    ),
    "script": ("wake up routine", "holiday mode", "fire drill", "cleaning day", "leaving home", "watering plan"),
    "todo": ("groceries", "chores", "packing", "birthday", "hardware store", "homework", "holiday", "pharmacy"),
    "sensor": (
        "outdoor humidity", "water pressure", "solar output", "air quality", "rain gauge", "pollen count",
        "power usage", "wind speed", "battery level", "carbon dioxide level",
    ),
}  # fmt: skip

DOMAIN_BY_NAME: Mapping[str, str] = {name: domain for domain, names in NAMES_BY_DOMAIN.items() for name in names}

COVERS: Sequence[str] = ("blinds", "curtains", "shutters", "shades", "awnings", "windows", "garage doors", "gates")

COLORS: Sequence[str] = (
    "white", "black", "red", "orange", "yellow", "green", "blue", "purple", "brown", "pink", "turquoise",
)  # fmt: skip

FAN_MODES: Sequence[str] = ("auto", "low", "medium", "high", "middle", "focus", "diffuse")

ITEMS: Sequence[str] = (
    "oat milk", "eggs", "brown bread", "light bulbs", "dish soap", "olive oil", "tomatoes", "cat food", "batteries",
    "coffee beans", "paper towels", "apples", "rice", "toothpaste", "sunscreen", "wrapping paper", "screws",
    "passport", "green tea", "flour", "yoghurt", "salmon", "onions", "dog treats", "sponges", "candles", "socks",
    "umbrella", "honey", "peanut butter", "hand cream", "vitamins", "potatoes", "cheddar", "bin bags", "chocolate",
    "birthday cake", "nails", "lemons", "spinach",
)  # fmt: skip

MEDIA: Sequence[str] = (
    "jazz", "rain sounds", "the morning news", "baroque music", "summer hits", "lullabies", "film scores",
    "bossa nova", "ocean waves", "classic rock", "piano sonatas", "nature documentaries", "workout beats",
    "folk songs", "audio books", "string quartets", "swing", "comedy stories", "delta blues", "choir music",
    "ambient noise", "opera highlights",
)  # fmt: skip

MESSAGES: Sequence[str] = (
    "dinner is ready", "the bus leaves in ten minutes", "bedtime starts now", "the laundry is done",
    "guests are arriving", "the parcel has come", "homework comes first", "the cake is out of the oven",
    "rain is on the way", "the meeting has started", "breakfast is served", "the dog needs a walk",
    "grandma is calling", "lunch is on the table", "the car is charged", "shoes belong in the rack",
    "movie time begins", "the pool is open", "the tea has cooled", "the taxi is waiting",
)  # fmt: skip

TIMER_NAMES: Sequence[str] = (
    "pasta", "egg", "pizza", "laundry", "tea", "nap", "bread", "workout", "roast", "homework", "oven", "parking",
    "rice", "meditation", "cookies", "plank",
)  # fmt: skip

MOMENTS: Sequence[str] = (
    "at sunset", "at sunrise", "when the last person leaves", "when everyone is asleep", "when the alarm goes off",
    "when the doorbell rings", "when it starts raining", "when the school day ends",
)  # fmt: skip

REPETITIONS: Sequence[str] = (
    "every day", "on weekdays", "every evening", "on mondays", "on tuesdays", "on wednesdays", "on thursdays",
    "on fridays", "on saturdays", "on sundays", "every second day", "on holidays",
)  # fmt: skip


def _numbers(start: int, stop: int, step: int = 1) -> Sequence[str]:
    return tuple(str(number) for number in range(start, stop, step))


VALUES_BY_LIST: Mapping[str, Sequence[str]] = {
    "area": AREAS,
    "floor": FLOORS,
    "cover_classes": COVERS,
    "color": COLORS,
    "fan_mode": FAN_MODES,
    "on_off_states": ("on", "off"),
    "cover_states": ("open", "closed"),
    "lock_states": ("locked", "unlocked"),
    "media_class": ("album", "playlist", "podcast", "show"),
    "search_query": MEDIA,
    "shopping_list_item": ITEMS,
    "todo_list_item": ITEMS,
    "message": MESSAGES,
    "timer_name": TIMER_NAMES,
    "brightness": _numbers(2, 101),
    "position": _numbers(2, 100),
    "fan_speed": _numbers(5, 101),
    "volume": _numbers(2, 101),
    "volume_step_up": _numbers(3, 51),
    "volume_step_down": _numbers(3, 51),
    "temperature": tuple(f"{half_degrees / 2:g}" for half_degrees in range(28, 57)),
    "color_temperature": _numbers(2000, 6600, 100),
    "timer_hours": _numbers(2, 13),
    "timer_minutes": _numbers(2, 60),
    "timer_seconds": _numbers(5, 60),
}
"""What the recipe says for a slot of the grammar, by the name of the grammar's list; units: percent, °C, kelvin."""
