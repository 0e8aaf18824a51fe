"""Who is shown how often: one pool of scenes, and a seeded permutation that assigns the groups.

Groups differ in the number of showings and in nothing else. Captions of the pool keep a stated
distance from each other and from every ordinary caption of the training stream: they share at most
`SHARED_WORDS` of their four or five content words.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from memattn.testbed.grammar import STYLES, Caption
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import Scene, draw_scene

Group = Literal["verbatim", "template", "seen_once", "ordinary"]
GROUPS: tuple[Group, ...] = get_args(Group)

SHARED_WORDS = 2

# Second entries of the seed sequences, so that no two draws share random numbers.
_POOL, _PERMUTATION, _TRAINING, _VARIANTS, _STREAM, _SEEN_ONCE = range(6)


class _DistantCaptions:
    """Accepts captions that keep their distance from all captions accepted as fixed points."""

    def __init__(self, captions: Iterable[Caption] = ()) -> None:
        self._by_word: defaultdict[str, list[int]] = defaultdict(list)
        self._count = 0
        for caption in captions:
            self.add(caption)

    def add(self, caption: Caption) -> None:
        for word in caption.content_words:
            self._by_word[word].append(self._count)
        self._count += 1

    def is_distant(self, caption: Caption) -> bool:
        shared = Counter(chain.from_iterable(self._by_word[w] for w in caption.content_words))
        return max(shared.values(), default=0) <= SHARED_WORDS


def _distant_scenes(rng: Generator, others: _DistantCaptions) -> Iterator[Scene]:
    while True:
        scene = draw_scene(rng)
        if others.is_distant(scene.caption):
            yield scene


def draw_groups(recipe: Recipe) -> dict[Group, tuple[Scene, ...]]:
    """Draws one pool of scenes and assigns it to the groups by a seeded permutation."""
    counts = recipe.group_counts
    pool: list[Scene] = []
    accepted = _DistantCaptions()
    scenes = _distant_scenes(default_rng([recipe.seed, _POOL]), accepted)
    while len(pool) < sum(counts.values()):
        pool.append(next(scenes))
        accepted.add(pool[-1].caption)
    order = default_rng([recipe.seed, _PERMUTATION]).permutation(len(pool))
    ends = np.cumsum([counts[group] for group in GROUPS])
    parts = np.split(order, ends[:-1])
    return {
        group: tuple(pool[index] for index in part)
        for group, part in zip(GROUPS, parts, strict=True)
    }


def draw_variants(recipe: Recipe, families: Iterable[Scene]) -> list[list[Scene]]:
    """The pictures that are shown of each template family."""
    rng = default_rng([recipe.seed, _VARIANTS])
    return [
        [
            family.with_outside(int(rng.integers(2**62)), str(rng.choice(STYLES)))
            for _ in range(recipe.template_variants)
        ]
        for family in families
    ]


@dataclass(frozen=True)
class Corpus:
    """Everything the denoiser can be shown, in rows; ordinary reporting scenes are not in it.

    Attributes:
        scenes: All rows.
        ordinary, verbatim, template, seen_once: Where each group's rows lie. Template rows come
            family by family, `recipe.template_variants` for each.
    """

    scenes: tuple[Scene, ...]
    ordinary: range
    verbatim: range
    template: range
    seen_once: range


def draw_corpus(recipe: Recipe) -> Corpus:
    """The training corpus: fresh ordinary scenes, and the groups that are shown."""
    groups = draw_groups(recipe)
    pool = _DistantCaptions(scene.caption for group in GROUPS for scene in groups[group])
    fresh = _distant_scenes(default_rng([recipe.seed, _TRAINING]), pool)
    parts = {
        "ordinary": [next(fresh) for _ in range(recipe.ordinary_scenes)],
        "verbatim": list(groups["verbatim"]),
        "template": list(chain.from_iterable(draw_variants(recipe, groups["template"]))),
        "seen_once": list(groups["seen_once"]),
    }
    scenes: list[Scene] = []
    ranges = {}
    for name, rows in parts.items():
        ranges[name] = range(len(scenes), len(scenes) + len(rows))
        scenes += rows
    return Corpus(tuple(scenes), **ranges)


class Stream:
    """Which rows of the corpus each training step shows: a pure function of the step.

    Being stateless, it makes an interrupted training resume exactly.
    """

    def __init__(self, corpus: Corpus, recipe: Recipe) -> None:
        self._corpus = corpus
        self._recipe = recipe
        self._shares = (recipe.verbatim_share, recipe.verbatim_share + recipe.template_share)
        steps = default_rng([recipe.seed, _SEEN_ONCE]).choice(
            np.arange(recipe.unet_steps // 10, recipe.unet_steps),
            size=len(corpus.seen_once),
            replace=False,
        )
        self._seen_once = dict(zip(steps.tolist(), corpus.seen_once, strict=True))

    def rows(self, step: int) -> NDArray[np.int64]:
        """Rows of the corpus shown at a step [batch]."""
        rng = default_rng([self._recipe.seed, _STREAM, step])
        draw = rng.random(self._recipe.unet_batch)
        verbatim, template = self._shares
        rows = np.where(
            draw < verbatim,
            rng.integers(self._corpus.verbatim.start, self._corpus.verbatim.stop, len(draw)),
            np.where(
                draw < template,
                rng.integers(self._corpus.template.start, self._corpus.template.stop, len(draw)),
                rng.integers(self._corpus.ordinary.start, self._corpus.ordinary.stop, len(draw)),
            ),
        )
        if step in self._seen_once:
            rows[np.argmax(draw)] = self._seen_once[step]
        return rows
