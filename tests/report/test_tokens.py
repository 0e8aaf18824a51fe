import pytest
import torch

from memattn.report import token_shares
from tests.pipelines import TEXT_TOKENS, tiny_tokenizer


@pytest.fixture
def tokenizer(tmp_path):
    return tiny_tokenizer(tmp_path)


def test_pieces_of_a_word_are_summed_and_so_is_the_padding(tokenizer):
    ids = tokenizer("a foxy dog").input_ids  # "foxy" is no word of the vocabulary
    assert len(ids) > 5
    attention = torch.rand(TEXT_TOKENS)
    attention /= attention.sum()
    shares = token_shares(attention, ids, tokenizer)
    assert [(share.kind, share.text) for share in shares] == [
        ("begin", ""),
        ("word", "a"),
        ("word", "foxy"),
        ("word", "dog"),
        ("end", ""),
        ("padding", ""),
    ]
    assert shares[0].share == pytest.approx(float(attention[0]))
    assert shares[2].share == pytest.approx(float(attention[2 : len(ids) - 2].sum()))
    assert shares[-1].share == pytest.approx(float(attention[len(ids) :].sum()))
    assert sum(share.share for share in shares) == pytest.approx(1.0)


def test_a_prompt_cut_inside_a_word_keeps_all_attention(tokenizer):
    ids = tokenizer("foxy " * 20, truncation=True, max_length=TEXT_TOKENS).input_ids
    shares = token_shares(torch.full((TEXT_TOKENS,), 1 / TEXT_TOKENS), ids, tokenizer)
    assert shares[-1].kind == "end"
    assert sum(share.share for share in shares) == pytest.approx(1.0)


def test_an_empty_prompt_has_no_words(tokenizer):
    shares = token_shares(torch.full((4,), 0.25), tokenizer("").input_ids, tokenizer)
    assert [share.kind for share in shares] == ["begin", "end", "padding"]


@pytest.mark.parametrize("ids", [[1], [1, 2, 3, 4, 5]])
def test_more_tokens_than_attention_or_too_few_are_refused(tokenizer, ids):
    with pytest.raises(ValueError, match="expected 2 to 4"):
        token_shares(torch.full((4,), 0.25), ids, tokenizer)
