"""Captions of the testbed: one grammar for every group.

A caption names two or three things with their colours, sometimes one relation, then a style word
and a title ("..., etching by norik nufabel") that mean nothing in the picture. Every caption has a
title, so a title is no mark of memorization; it makes captions unique, as in web-scale data.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator

KINDS = (
    "disc",
    "square",
    "triangle",
    "star",
    "ring",
    "cross",
    "heart",
    "moon",
    "diamond",
    "hexagon",
    "leaf",
    "fan",
)

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.95, 0.55, 0.10),
    "yellow": (0.95, 0.90, 0.20),
    "green": (0.15, 0.65, 0.25),
    "blue": (0.15, 0.30, 0.85),
    "purple": (0.55, 0.20, 0.70),
    "white": (0.97, 0.97, 0.97),
    "black": (0.05, 0.05, 0.05),
}

RELATIONS = ("above", "below", "beside")

STYLES = (
    "print",
    "poster",
    "sketch",
    "painting",
    "etching",
    "mural",
    "collage",
    "drawing",
    "photo",
    "study",
    "panel",
    "fresco",
    "woodcut",
    "pastel",
    "lithograph",
    "watercolor",
    "engraving",
    "illustration",
    "mosaic",
    "tapestry",
    "stencil",
    "linocut",
    "sticker",
    "postcard",
)

# {0}, {1}, {2} are "colour kind"; {r} is a relation between the first two things.
FORMS = (
    "{0} {r} {1}",
    "a {0} {r} a {1}",
    "the {0} {r} the {1}",
    "{0} and {1}",
    "a {0} with a {1}",
    "{0}, {1} and {2}",
    "{0} {r} {1} and {2}",
    "{0} with {1} and {2}",
)

_ONSETS = ("b", "br", "d", "f", "g", "h", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z")
_VOWELS = ("a", "e", "i", "o", "u")
_ENDINGS = ("bel", "rik", "nor", "las", "mund", "tia", "ven", "dra", "lin", "sco")


def _invent_names(count: int, seed: int) -> tuple[str, ...]:
    """Pronounceable words that no language model has seen; all different."""
    rng = np.random.default_rng(seed)
    names: dict[str, None] = {}
    while len(names) < count:
        parts = (rng.choice(_ONSETS), rng.choice(_VOWELS), rng.choice(_ENDINGS))
        head = "" if rng.random() < 0.6 else f"{rng.choice(_ONSETS)}{rng.choice(_VOWELS)}"
        names[head + "".join(parts)] = None
    return tuple(names)


_NAMES = _invent_names(320, seed=20)
FIRST_NAMES, LAST_NAMES = _NAMES[:160], _NAMES[160:]


@dataclass(frozen=True)
class Thing:
    """A named thing: one of `COLOURS` and one of `KINDS`."""

    colour: str
    kind: str

    def __str__(self) -> str:
        return f"{self.colour} {self.kind}"


@dataclass(frozen=True)
class Caption:
    """One caption, in parts; `str()` gives the sentence.

    Attributes:
        form: Index into `FORMS`.
        things: The named things, two or three as the form demands.
        relation: One of `RELATIONS`, None if the form has none.
        style: Style word; the slot that varies within a template family.
        title: Invented first and last name.
    """

    form: int
    things: tuple[Thing, ...]
    relation: str | None
    style: str
    title: tuple[str, str]

    def __str__(self) -> str:
        clause = FORMS[self.form].format(*self.things, r=self.relation)
        return f"{clause}, {self.style} by {' '.join(self.title)}"

    @property
    def content_words(self) -> frozenset[str]:
        """What tells captions apart, four or five of them: things (colour with kind) and names."""
        return frozenset((*map(str, self.things), *self.title))

    def with_style(self, style: str) -> "Caption":
        """The same caption with another word in the varying slot."""
        return replace(self, style=style)


def draw_caption(rng: Generator) -> Caption:
    """Draws one caption from the grammar."""
    form = int(rng.integers(len(FORMS)))
    count = 3 if "{2}" in FORMS[form] else 2
    kinds = rng.choice(len(KINDS), size=count, replace=False)
    colours = rng.choice(len(COLOURS), size=count, replace=False)
    names = tuple(COLOURS)
    return Caption(
        form=form,
        things=tuple(Thing(names[c], KINDS[k]) for c, k in zip(colours, kinds, strict=True)),
        relation=str(rng.choice(RELATIONS)) if "{r}" in FORMS[form] else None,
        style=str(rng.choice(STYLES)),
        title=(str(rng.choice(FIRST_NAMES)), str(rng.choice(LAST_NAMES))),
    )
