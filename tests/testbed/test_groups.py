from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from memattn.evaluation.roc import auroc
from memattn.testbed.groups import GROUPS, SHARED_WORDS, Stream, draw_corpus, draw_groups
from memattn.testbed.recipe import Recipe
from memattn.testbed.scenes import inside_mask, render

SMALL = Recipe(
    verbatim=6,
    template=5,
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
        assert len(first.content_words & second.content_words) <= SHARED_WORDS


def test_training_captions_keep_their_distance_from_the_pool(corpus):
    pool = [scene.caption for group in draw_groups(SMALL).values() for scene in group]
    for row in corpus.ordinary:
        words = corpus.scenes[row].caption.content_words
        assert all(len(words & caption.content_words) <= SHARED_WORDS for caption in pool)


def test_ordinary_pool_scenes_are_never_in_the_corpus(corpus):
    ordinary = {str(scene.caption) for scene in draw_groups(SMALL)["ordinary"]}
    assert not ordinary & {str(scene.caption) for scene in corpus.scenes}


def test_captions_do_not_tell_the_groups_apart():
    """A bag of words and the length, cross-validated, stay at chance."""
    groups = draw_groups(Recipe())
    captions = [str(scene.caption) for group in GROUPS for scene in groups[group]]
    memorized = np.repeat([True, True, False, False], [len(groups[group]) for group in GROUPS])
    words = CountVectorizer().fit_transform(captions).toarray()
    lengths = np.array([[len(caption.split())] for caption in captions])
    for features in (words, lengths):
        classifier = LogisticRegression(class_weight="balanced", max_iter=1000)
        scores = cross_val_predict(
            classifier, features, memorized, cv=5, method="decision_function"
        )
        result = auroc(*(_tensor(scores[memorized]), _tensor(scores[~memorized])))
        assert result.low <= 0.5 <= result.high


def _tensor(values):
    import torch

    return torch.from_numpy(np.asarray(values))


def test_template_family_shares_its_inside_and_nothing_else(corpus):
    first, second = (corpus.scenes[corpus.template.start + index] for index in range(2))
    inside = inside_mask(first)
    assert (inside == inside_mask(second)).all()
    a, b = render(first), render(second)
    assert (a[inside] == b[inside]).all()
    assert np.abs(a - b)[~inside].mean() > 0.02


def test_stream_shows_each_group_its_share(corpus):
    stream = Stream(corpus, SMALL)
    shown = Counter(int(row) for step in range(SMALL.unet_steps) for row in stream.rows(step))
    total = SMALL.unet_steps * SMALL.unet_batch
    for rows, share in (
        (corpus.verbatim, SMALL.verbatim_share),
        (corpus.template, SMALL.template_share),
    ):
        assert sum(shown[row] for row in rows) / total == pytest.approx(share, abs=0.02)
    assert [shown[row] for row in corpus.seen_once] == [1] * SMALL.seen_once


def test_stream_is_a_function_of_the_step(corpus):
    first, second = Stream(corpus, SMALL), Stream(corpus, SMALL)
    first.rows(3)
    assert (first.rows(150) == second.rows(150)).all()
