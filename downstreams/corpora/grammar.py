"""What the synthetic voices say: sentences and commands drawn from grammars, and their phones.

Nothing is a list of finished sentences: a pattern is drawn, then each of its slots.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from harness.interface import SlimbenchError
from harness.synthesis import Synthesiser

WORDS: dict[str, tuple[str, ...]] = {
    kind: tuple(words.split())
    for kind, words in {
        "det": "the my our",
        "name": "anna george theo zoe",
        "person": "doctor teacher boy judge",
        "mass": "bread cheese juice fish",
        "thing": "book boat bridge church garden house mirror picture toy shoe",
        "verb": "bought chose found measured opened showed visited washed",
        "went": "came worked",
        "adjective": "big blue cheap empty long quiet small yellow",
        "often": "never usually",
        "time": "today again now",
        "number": "three five seven eight",
        "place": "under near beyond",
        "with": "with",
        "is": "was",
        "and": "and",
        "at": "at",
    }.items()
}
"""The vocabulary of the sentences, by kind of word.

Some sixty words, about as many as in the GRID corpus, because CTC from scratch on a quarter of an hour of speech learns
words of a small vocabulary and nothing of a large one.
"""

PATTERNS: tuple[str, ...] = (
    "det adjective person verb det thing",
    "name verb det adjective thing",
    "det person verb det thing",
    "det person often verb mass",
    "name and name verb mass",
    "name went at number time",
    "det thing is place det thing",
    "det thing is adjective and adjective",
    "name often verb det thing time",
    "det person went with name",
)
"""Sentences of four to six words, as kinds of words."""

STYLE_PATTERNS: tuple[str, ...] = ("name verb det thing", "det person verb mass", "det thing is adjective time")
"""Shorter sentences, for the acted styles."""

_ACTIVATE = ("turn on {o}", "turn {o} on", "switch on {o}", "switch {o} on", "start {o}")
_DEACTIVATE = ("turn off {o}", "turn {o} off", "switch off {o}", "switch {o} off", "stop {o}")
_BRING = ("bring me {o}", "get me {o}", "fetch {o}", "go get {o}", "bring {o} here", "I need {o}")
_LANGUAGE = (
    "change the language to {o}",
    "set the language to {o}",
    "switch to {o}",
    "use {o}",
    "I want to practice {o}",
)
_UP = ("turn up {o}", "turn {o} up", "increase {o}", "raise {o}")
_DOWN = ("turn down {o}", "turn {o} down", "decrease {o}", "lower {o}")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "activate": _ACTIVATE,
    "deactivate": _DEACTIVATE,
    "bring": _BRING,
    "change language": _LANGUAGE,
    "increase": _UP,
    "decrease": _DOWN,
}
"""Ways to ask for an action; ``{o}`` is the object."""

NAMES: dict[str, tuple[str, ...]] = {
    "lights": ("the lights", "the light"),
    "lamp": ("the lamp", "that lamp"),
    "music": ("the music", "the song"),
    "newspaper": ("the newspaper", "the paper", "my newspaper"),
    "juice": ("some juice", "the juice", "my juice"),
    "socks": ("the socks", "my socks", "some socks"),
    "shoes": ("the shoes", "my shoes"),
    "Chinese": ("Chinese",),
    "English": ("English",),
    "German": ("German",),
    "Korean": ("Korean",),
    "none": ("another language", "a different language"),
    "volume": ("the volume", "the sound"),
    "heat": ("the heat", "the temperature", "the heating"),
}
"""Ways to name an object of Fluent Speech Commands."""

PLACES: dict[str, tuple[str, ...]] = {
    "none": ("",),
    "kitchen": ("in the kitchen",),
    "bedroom": ("in the bedroom",),
    "washroom": ("in the washroom", "in the bathroom"),
}
"""Ways to name a place."""

INTENTS: tuple[tuple[str, str, str], ...] = (
    *((a, "lights", p) for a in ("activate", "deactivate") for p in PLACES),
    *((a, o, "none") for a in ("activate", "deactivate") for o in ("lamp", "music")),
    *(("bring", o, "none") for o in ("newspaper", "juice", "socks", "shoes")),
    *(("change language", o, "none") for o in ("none", "Chinese", "English", "German", "Korean")),
    *((a, "volume", "none") for a in ("increase", "decrease")),
    *((a, "heat", p) for a in ("increase", "decrease") for p in PLACES),
)
"""The 31 combinations of action, object and location in Fluent Speech Commands (Lugosch et al. 2019)."""

_ARPABET: dict[str, str] = {
    **{p: p.upper() for p in "b d f g k l m n p r s t v w z".split()},
    **{"h": "HH", "j": "Y", "N": "NG", "S": "SH", "Z": "ZH", "T": "TH", "D": "DH", "tS": "CH", "dZ": "JH"},
    **{"t#": "T", "t2": "T", ";": "", "@L": "AH L"},
    **{"a": "AE", "A": "AA", "0": "AA", "A@": "AA R", "O": "AO", "O2": "AO", "O@": "AO R", "o@": "AO R"},
    **{"3": "ER", "@": "AH", "@2": "AH", "a#": "AH", "V": "AH", "E": "EH", "e@": "EH R", "eI": "EY"},
    **{"I": "IH", "I2": "IH", "I#": "IH", "i": "IY", "i@": "IH", "i@3": "IH R", "oU": "OW", "OI": "OY"},
    **{"u": "UW", "U": "UH", "U@": "UH R", "aI": "AY", "aI@": "AY AH", "aU": "AW"},
}
"""espeak-ng's mnemonics of American English as phones of the CMU set; ``;`` is a glide without a phone of its own."""


def sentence(rng: np.random.Generator, patterns: tuple[str, ...] = PATTERNS) -> str:
    """Draw one sentence, in lower case; no content word stands in it twice."""
    while True:
        kinds = patterns[int(rng.integers(len(patterns)))].split()
        words = [WORDS[kind][int(rng.integers(len(WORDS[kind])))] for kind in kinds]
        content = [word for word, kind in zip(words, kinds, strict=True) if kind != "det"]
        if len(set(content)) == len(content):
            return " ".join(words)


def sentences(rng: np.random.Generator, count: int, patterns: tuple[str, ...] = PATTERNS) -> list[str]:
    """Draw ``count`` different sentences."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[sentence(rng, patterns)] = None
    return list(found)


def command(rng: np.random.Generator, intent: tuple[str, str, str]) -> str:
    """Draw a phrasing of an intent (action, object, location)."""
    action, thing, place = intent

    def pick(ways: tuple[str, ...]) -> str:
        return ways[int(rng.integers(len(ways)))]

    words = [pick(TEMPLATES[action]).format(o=pick(NAMES[thing])), pick(PLACES[place])]
    polite = rng.random()
    if polite < 0.15:
        words.insert(0, "please")
    elif polite < 0.25:
        words.append("please")
    return " ".join(word for word in words if word)


def lexicon(words: Iterable[str], engine: Synthesiser) -> dict[str, str]:
    """Phones of each word, space-separated, sorted by word.

    Raises:
        SlimbenchError: espeak-ng gives a word a phone that this table does not know.
    """
    table = {}
    for word in sorted(set(words)):
        phones = engine.phones(word)
        unknown = [phone for phone in phones if phone not in _ARPABET]
        if unknown:
            raise SlimbenchError(
                f"{__file__}: espeak-ng says {word!r} with {unknown[0]!r}, which _ARPABET lacks; add it there."
            )
        table[word] = " ".join(_ARPABET[phone] for phone in phones if _ARPABET[phone])
    return table
