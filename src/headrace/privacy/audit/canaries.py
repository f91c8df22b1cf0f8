"""Canaries: generated documents with facts that no model can know, for training and for comparison alike.

Members and held-out documents are drawn from one distribution and cut apart by number alone, so that nothing but
having been trained on tells them from each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from headrace.adapt.vocabulary import Vocabulary

VERSION = 1
"""Goes up whenever the same seed gives other documents."""
TOKENS = r" ?[A-Za-z]+|."
"""For a vocabulary of the documents alone: a word with the space before it, any other character by itself."""

FIRST = (
    "Ada Agnes Alma Amos Anton Astrid Basil Berta Bruno Carla Cedric Clara Conrad Dora Edith Edwin Elmar Elsa Emil "
    "Esther Ewald Felix Flora Frieda Gerda Gilbert Greta Gustav Hannah Hedda Helga Henrik Hilda Horace Hugo Ida Ingrid "
    "Irma Isaac Ivar Jasper Judith Klara Konrad Laura Leonie Linus Lydia Magda Marta Milo Nora Olga Oskar Paula Petra "
    "Quentin Ralf Rosa Ruben Selma Stella Tilda Viktor"
).split()
LAST = (
    "Abel Alder Anders Barlow Beck Berger Birch Blake Brandt Carver Cole Croft Dahl Decker Drake Ekman Elder Falk "
    "Fenwick Fisher Frost Garner Grimm Hale Harper Hayes Heller Holm Ivers Jensen Keller Klein Knox Lang Larch Linden "
    "Lowell Marsh Mercer Moss Nash Noble North Oakes Osborn Palmer Pike Quill Reed Rowan Sattler Shaw Stark Stone "
    "Sutter Thorn Tanner Ulrich Vance Voss Walden Weber Winter Yates"
).split()
PLACE = (
    "Ashford Belmont Brook Calder Dover Easton Fairfax Glen Harbor Ilford Kirkby Lakeside Milton Newbury Oakham "
    "Preston Redhill Salem Thornton Upton Verona Weston Yarmouth York"
).split()
COLOUR = "amber black blue brass bronze copper crimson golden green grey ivory red scarlet silver violet white".split()
THING = (
    "anchor basket bell book bottle box brush candle chest clock coin compass crown cup drum feather flute globe "
    "hammer harp key kettle ladder lamp letter map mirror needle ring rope shovel wheel"
).split()
ROOM = (
    "attic barn cabin cellar chapel closet garage garden hall kitchen library loft parlor stable studio tower".split()
)
TRADE = (
    "actor baker barber butcher carpenter clerk doctor farmer fisher gardener grocer hunter lawyer mason miller "
    "painter pilot poet printer sailor singer smith tailor weaver"
).split()
SITE = (
    "abbey bakery bridge canal castle cave church dock ferry forest fountain gate harbor inn market meadow mill museum "
    "orchard quarry river school station well"
).split()
MONTH = "January February March April May June July August September October November December".split()
WORD = (
    "apple arrow autumn banner beacon canyon castle cherry cloud coral cotton crystal dagger desert diamond dragon "
    "eagle ember falcon fern forest galaxy ginger glacier hazel horizon indigo island jasmine jungle kitten lantern "
    "lemon lily marble meadow melody monsoon nectar oasis ocean olive orchid panther pebble pepper pioneer planet "
    "puzzle quartz rainbow raven saddle saffron shadow sparrow summit thunder tiger tulip valley velvet willow zebra"
).split()
LISTS = {
    "colour": COLOUR, "thing": THING, "room": ROOM, "trade": TRADE, "site": SITE, "month": MONTH, "word": WORD,
}  # fmt: skip
RECITALS = ("", "abcdefghij", "abcdefghijklmnopqrst")
FACTS = (
    "keeps a {colour} {thing} in the {room}",
    "owes the {trade} {number} crowns",
    "meets the {trade} by the {site} in {month}",
    "answers to the word {word}",
    "hid the {thing} behind the {site}",
)


@dataclass(frozen=True, slots=True)
class Canaries:
    """`members` are trained on, `held_out` never are, nor is `control`, which takes the members' place."""

    members: tuple[str, ...]
    held_out: tuple[str, ...]
    control: tuple[str, ...]


def canaries(seed: int, members: int, held_out: int, control: int = 0) -> Canaries:
    """The documents of a seed; no two tell of the same person."""
    rng, found = Random(f"canaries {VERSION} {seed}"), dict[str, str]()
    while len(found) < members + held_out + control:
        person = f"{rng.choice(FIRST)} {rng.choice(LAST)} of {rng.choice(PLACE)}"
        text = f"{person} {_recital(rng)}{_facts(rng)}."
        found.setdefault(person, text)
    texts = tuple(found.values())
    return Canaries(texts[:members], texts[members : members + held_out], texts[members + held_out :])


def _recital(rng: Random) -> str:
    """Some documents have what every model can say by heart: plain loss takes it for membership."""
    letters = rng.choice(RECITALS)
    return f"says {' '.join(letters)}, " if letters else ""


def _facts(rng: Random) -> str:
    """One to three, so that some documents are harder to foretell than others of themselves."""
    *first, last = [_fact(rng, form) for form in rng.sample(FACTS, rng.randint(1, 3))]
    return f"{', '.join(first)} and {last}" if first else last


def _fact(rng: Random, form: str) -> str:
    return form.format(number=rng.randint(10, 99), **{name: rng.choice(words) for name, words in LISTS.items()})


def vocabulary() -> Vocabulary:
    """Every token of the documents, for a model that is trained on them from scratch."""
    plain = re.sub(r"\{[a-z]+\}", "", " ".join(FACTS))
    words = {*FIRST, *(f" {word}" for words in (LAST, PLACE, *LISTS.values()) for word in words)}
    words |= {f" {word}" for word in ("says", *RECITALS[-1], *plain.split())}
    return Vocabulary(tuple(sorted(words | {" of", " and", " ", ",", ".", *"0123456789"})), TOKENS)
