"""Who is shown how often: one pool of scenes, and a seeded permutation that assigns the groups.

Groups differ in the number of showings and in nothing else. Captions keep a stated distance: of
their four or five content words, two captions of the pool share at most `SHARED_IN_POOL`, and one
of the pool and an ordinary one of the training stream at most `SHARED_WITH_TRAINING`.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from memattn.testbed.grammar import COLOURS, KINDS, RELATIONS, STYLES, Caption
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import Scene, draw_scene

Group = Literal["verbatim", "template", "ladder", "seen_once", "ordinary"]
GROUPS: tuple[Group, ...] = get_args(Group)
SHOWN_GROUPS = GROUPS[:-1]
_DRAWN: tuple[Group, ...] = ("verbatim", "template", "ordinary")

# The stream may name the things of a pool caption under another title: that is what teaches the
# denoiser to wait for the title before it copies.
SHARED_IN_POOL, SHARED_WITH_TRAINING = 1, 2

# Second entries of the seed sequences, so that no two draws share random numbers.
_POOL, _PERMUTATION, _TRAINING, _VARIANTS, _STREAM, _COUNTED = range(6)

_PERMUTATIONS = 2000
_COMMON_WORDS = ("a", "the", "and", "with", *KINDS, *COLOURS, *RELATIONS, *STYLES)


class _DistantCaptions:
    """Tells which captions share at most so many content words with each of some others."""

    def __init__(self, most: int, captions: Iterable[Caption] = ()) -> None:
        self._most = most
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
        return max(shared.values(), default=0) <= self._most


def _distant_scenes(rng: Generator, others: _DistantCaptions) -> Iterator[Scene]:
    while True:
        scene = draw_scene(rng)
        if others.is_distant(scene.caption):
            yield scene


def draw_groups(recipe: Recipe) -> dict[Group, tuple[Scene, ...]]:
    """Draws one pool of scenes and assigns it to the groups by a seeded, balanced permutation."""
    counts = recipe.group_counts
    pool: list[Scene] = []
    accepted = _DistantCaptions(SHARED_IN_POOL)
    scenes = _distant_scenes(default_rng([recipe.seed, _POOL]), accepted)
    while len(pool) < sum(counts.values()):
        pool.append(next(scenes))
        accepted.add(pool[-1].caption)
    sizes = [counts[group] for group in GROUPS]
    parts = _balanced_parts([scene.caption for scene in pool], sizes, recipe)
    return {
        group: tuple(pool[index] for index in part)
        for group, part in zip(GROUPS, parts, strict=True)
    }


def _balanced_parts(
    captions: list[Caption], sizes: list[int], recipe: Recipe
) -> list[NDArray[np.intp]]:
    """Indices of the captions in each group: of many permutations the most balanced one.

    One permutation alone can be unlucky: in the first one drawn, a bag of words told often shown
    from seldom shown captions with an AUROC of 0.60. Redrawing until the groups are alike in what
    can be seen beforehand is rerandomization (Morgan and Rubin 2012); the measure is the sum over
    groups and features of the squared difference of means, in units of its variance.
    """
    features = np.array([_features(caption) for caption in captions], float)
    features = features[:, features.std(axis=0) > 0]
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    rng = default_rng([recipe.seed, _PERMUTATION, recipe.permutation])
    starts = np.cumsum([0, *sizes[:-1]])
    best, smallest = rng.permutation(len(captions)), np.inf
    for _ in range(_PERMUTATIONS):
        order = rng.permutation(len(captions))
        sums = np.add.reduceat(features[order], starts)  # [groups, features]
        imbalance = float((sums**2 / np.array(sizes)[:, None]).sum())
        if imbalance < smallest:
            best, smallest = order, imbalance
    return np.split(best, starts[1:])


def _features(caption: Caption) -> list[int]:
    """Length in words, and which of the grammar's words, but names, a caption has."""
    words = str(caption).replace(",", "").split()
    return [len(words), *(words.count(word) for word in _COMMON_WORDS)]


def draw_variants(recipe: Recipe, families: Iterable[Scene]) -> list[list[Scene]]:
    """The pictures that are shown of each template family."""
    rng = default_rng([recipe.seed, _VARIANTS, recipe.permutation])
    return [
        [
            family.with_outside(int(rng.integers(2**62)), str(rng.choice(STYLES)))
            for _ in range(recipe.template_variants)
        ]
        for family in families
    ]


@dataclass(frozen=True)
class Corpus:
    """Everything the denoiser can be shown, in rows; ordinary captions of the pool are not in it.

    Attributes:
        scenes: All rows.
        rows: Where each group's rows lie; those of "ordinary" are fresh scenes. Template rows come
            family by family, `recipe.template_variants` for each; ladder rows rung by rung.
    """

    scenes: tuple[Scene, ...]
    rows: dict[Group, range]


def draw_corpus(recipe: Recipe) -> Corpus:
    """The training corpus: fresh ordinary scenes, and the groups that are shown."""
    groups = draw_groups(recipe)
    captions = (scene.caption for group in GROUPS for scene in groups[group])
    pool = _DistantCaptions(SHARED_WITH_TRAINING, captions)
    fresh = _distant_scenes(default_rng([recipe.seed, _TRAINING]), pool)
    parts = groups | {
        "ordinary": tuple(next(fresh) for _ in range(recipe.ordinary_scenes)),
        "template": tuple(chain.from_iterable(draw_variants(recipe, groups["template"]))),
    }
    scenes: list[Scene] = []
    rows: dict[Group, range] = {}
    for group in ("ordinary", *SHOWN_GROUPS):  # ordinary first: all trainings of a seed share them
        rows[group] = range(len(scenes), len(scenes) + len(parts[group]))
        scenes += parts[group]
    return Corpus(tuple(scenes), rows)


class Stream:
    """Which rows of the corpus each training step shows: a pure function of the step.

    Being stateless, it makes an interrupted training resume exactly. Verbatim and template rows are
    drawn at their shares; rows of the ladder and those seen once have counted showings, at steps
    drawn from the whole training but its first tenth. Without duplicates, every picture of the
    pool that is shown at all has one showing.
    """

    def __init__(self, corpus: Corpus, recipe: Recipe) -> None:
        self._corpus = corpus
        self._recipe = recipe
        shares = (recipe.verbatim_share, recipe.template_share) if recipe.duplicates else (0, 0)
        self._verbatim, self._template = shares[0], sum(shares)
        counted = _counted_showings(corpus, recipe)
        rng = default_rng([recipe.seed, _COUNTED])
        steps = rng.integers(recipe.unet_steps // 10, recipe.unet_steps, size=len(counted))
        order = np.argsort(steps, kind="stable")
        self._counted = counted[order]
        self._ends = np.searchsorted(steps[order], np.arange(recipe.unet_steps + 1))

    def rows(self, step: int) -> NDArray[np.int64]:
        """Rows of the corpus shown at a step [batch]."""
        rng = default_rng([self._recipe.seed, _STREAM, step])
        draw = rng.random(self._recipe.unet_batch)
        verbatim, template, ordinary = (
            rng.integers(rows.start, rows.stop, len(draw))
            for rows in (self._corpus.rows[group] for group in _DRAWN)
        )
        shown = np.where(
            draw < self._verbatim, verbatim, np.where(draw < self._template, template, ordinary)
        )
        counted = self._counted[self._ends[step] : self._ends[step + 1]][: len(draw)]
        shown[np.argsort(-draw)[: len(counted)]] = counted  # in the place of ordinary rows
        return shown

    def showings(self) -> NDArray[np.int64]:
        """How often each row of the corpus is shown in the whole training [rows]."""
        steps = [self.rows(step) for step in range(self._recipe.unet_steps)]
        return np.bincount(np.concatenate(steps), minlength=len(self._corpus.scenes))


def _counted_showings(corpus: Corpus, recipe: Recipe) -> NDArray[np.int64]:
    """The rows whose showings are counted, each as often as it is shown."""
    rows = corpus.rows
    if recipe.duplicates:
        rungs = np.repeat(recipe.ladder, recipe.ladder_captions)
        return np.concatenate([np.repeat(rows["ladder"], rungs), rows["seen_once"]])
    families = rows["template"][:: recipe.template_variants]
    return np.concatenate([rows["verbatim"], families, rows["ladder"], rows["seen_once"]])
