from functools import cache
from itertools import combinations

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from memattn.evaluation.roc import auroc
from memattn.testbed.groups import (
    GROUPS,
    SHARED_IN_POOL,
    SHARED_WITH_TRAINING,
    SHOWN_GROUPS,
    Stream,
    draw_corpus,
    draw_groups,
)
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import inside_mask, render

SMALL = Recipe(
    verbatim=6,
    template=5,
    ladder=(1, 3, 20),
    ladder_captions=2,
    seen_once=4,
    ordinary=40,
    ordinary_scenes=200,
    template_variants=3,
    unet_steps=200,
)


@pytest.fixture(scope="module")
def corpus():
    return draw_corpus(SMALL)


def test_groups_have_the_sizes_of_the_recipe():
    groups = draw_groups(SMALL)
    assert {group: len(scenes) for group, scenes in groups.items()} == SMALL.group_counts


def test_groups_depend_on_the_seed_alone():
    assert draw_groups(SMALL) == draw_groups(SMALL)
    assert draw_groups(SMALL) != draw_groups(Recipe(**{**vars(SMALL), "seed": 1}))


def test_pool_captions_keep_their_distance():
    captions = [scene.caption for group in draw_groups(SMALL).values() for scene in group]
    for first, second in combinations(captions, 2):
        assert len(first.content_words & second.content_words) <= SHARED_IN_POOL


def test_training_captions_keep_their_distance_from_the_pool(corpus):
    pool = [scene.caption for group in draw_groups(SMALL).values() for scene in group]
    for row in corpus.rows["ordinary"]:
        words = corpus.scenes[row].caption.content_words
        assert all(len(words & caption.content_words) <= SHARED_WITH_TRAINING for caption in pool)


def test_ordinary_pool_scenes_are_never_in_the_corpus(corpus):
    ordinary = {str(scene.caption) for scene in draw_groups(SMALL)["ordinary"]}
    assert not ordinary & {str(scene.caption) for scene in corpus.scenes}


@pytest.mark.parametrize("permutation", [0, 1, 2])
def test_captions_do_not_tell_the_groups_apart(permutation):
    """A bag of words and the length, cross-validated, stay at chance.

    Folds of balanced groups lean against each other, which can push the value below 0.5.
    """
    captions, of_caption = _captions(permutation)
    repeated = np.isin(of_caption, ("verbatim", "template", "ladder"))
    for features in _words_and_lengths(captions):
        result = _area(features, repeated)
        assert result.low <= 0.5
        assert result.high >= 0.45


@pytest.mark.parametrize("group", GROUPS)
def test_captions_tell_no_group_from_the_rest(group):
    captions, of_caption = _captions(permutation=0)
    for features in _words_and_lengths(captions):
        assert _area(features, of_caption == group).low <= 0.5


@cache
def _captions(permutation):
    """All captions of the pool, and the group of each."""
    groups = draw_groups(Recipe(permutation=permutation))
    captions = [str(scene.caption) for group in GROUPS for scene in groups[group]]
    return captions, np.repeat(GROUPS, [len(groups[group]) for group in GROUPS])


def _words_and_lengths(captions):
    words = CountVectorizer().fit_transform(captions).toarray()
    return words, np.array([[len(caption.split())] for caption in captions])


def _area(features, inside):
    """AUROC of a cross-validated classifier that tells some captions from the others."""
    classifier = LogisticRegression(class_weight="balanced", max_iter=1000)
    scores = cross_val_predict(classifier, features, inside, cv=5, method="decision_function")
    return auroc(_tensor(scores[inside]), _tensor(scores[~inside]))


def _tensor(values):
    import torch

    return torch.from_numpy(np.asarray(values))


def test_template_family_shares_its_inside_and_nothing_else(corpus):
    first, second = (corpus.scenes[corpus.rows["template"][index]] for index in range(2))
    inside = inside_mask(first)
    assert (inside == inside_mask(second)).all()
    a, b = render(first), render(second)
    assert (a[inside] == b[inside]).all()
    assert np.abs(a - b)[~inside].mean() > 0.02


def test_a_permutation_moves_scenes_between_groups_and_changes_nothing_else(corpus):
    """Pool and ordinary training scenes stay, so that trainings can share their first stages."""
    other = Recipe(**{**vars(SMALL), "permutation": 1})
    groups, permuted = draw_groups(SMALL), draw_groups(other)
    assert groups != permuted
    assert set().union(*groups.values()) == set().union(*permuted.values())
    ordinary = corpus.rows["ordinary"]
    assert (
        draw_corpus(other).scenes[ordinary.start : ordinary.stop] == corpus.scenes[: len(ordinary)]
    )


def test_stream_shows_each_group_its_share(corpus):
    shown = Stream(corpus, SMALL).showings()
    total = SMALL.unet_steps * SMALL.unet_batch
    for group, share in (("verbatim", SMALL.verbatim_share), ("template", SMALL.template_share)):
        assert shown[list(corpus.rows[group])].sum() / total == pytest.approx(share, abs=0.02)
    assert shown[list(corpus.rows["ladder"])].tolist() == [1, 1, 3, 3, 20, 20]
    assert shown[list(corpus.rows["seen_once"])].tolist() == [1] * SMALL.seen_once
    assert shown.sum() == total


def test_counted_showings_begin_after_the_first_tenth(corpus):
    stream = Stream(corpus, SMALL)
    counted = {*corpus.rows["ladder"], *corpus.rows["seen_once"]}
    early = [row for step in range(SMALL.unet_steps // 10) for row in stream.rows(step)]
    assert not counted & set(early)


def test_without_duplicates_every_shown_caption_is_shown_once(corpus):
    control = SMALL.without_duplicates()
    shown = Stream(corpus, control).showings()
    for group in SHOWN_GROUPS:
        variants = SMALL.template_variants if group == "template" else 1
        of_captions = shown[list(corpus.rows[group])].reshape(-1, variants).sum(axis=1)
        assert (of_captions == 1).all()
    assert control.unet_steps < SMALL.unet_steps


def test_stream_is_a_function_of_the_step(corpus):
    first, second = Stream(corpus, SMALL), Stream(corpus, SMALL)
    first.rows(3)
    assert (first.rows(150) == second.rows(150)).all()
