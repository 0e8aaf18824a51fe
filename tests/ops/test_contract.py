"""Bad arguments are answered in one sentence that names the argument."""

import pytest
import torch

import memattn

QUERY, KEY = torch.zeros(2, 3, 5, 8), torch.zeros(2, 3, 7, 8)

REFUSED = {
    "query is no tensor": (
        {"query": [1.0]},
        TypeError,
        "query: got list, expected a torch.Tensor",
    ),
    "query has three axes": (
        {"query": QUERY[0]},
        ValueError,
        r"query: got shape \[3, 5, 8\], expected \[B, H, L, D\]",
    ),
    "query is integer": (
        {"query": QUERY.long()},
        TypeError,
        "query: got torch.int64, expected one of torch.float32, .*",
    ),
    "no keys": (
        {"key": KEY[:, :, :0], "value": KEY[:, :, :0]},
        ValueError,
        "query and key: got shapes .*, expected at least one .*",
    ),
    "key of another dtype": (
        {"key": KEY.half()},
        TypeError,
        "key: got torch.float16, expected the query's torch.float32",
    ),
    "key of another head dimension": (
        {"key": KEY[..., :4]},
        ValueError,
        r"key: got shape \[2, 3, 7, 4\], expected \[2, 3, 7, 8\]",
    ),
    "value of another length": (
        {"value": KEY[:, :, :6]},
        ValueError,
        r"value: got shape \[2, 3, 6, 8\], expected \[2, 3, 7, 8\]",
    ),
    "value on another device": (
        {"value": KEY.to("meta")},
        ValueError,
        "value: got device meta, expected the query's cpu",
    ),
    "key_bias per head": (
        {"key_bias": torch.zeros(2, 3, 7)},
        ValueError,
        r"key_bias: got shape \[2, 3, 7\], expected \[2, 7\]",
    ),
    "key_bias of booleans": (
        {"key_bias": torch.ones(2, 7, dtype=torch.bool)},
        TypeError,
        "key_bias: got torch.bool, expected a floating dtype",
    ),
    "begin_scale is a number": (
        {"begin_scale": 1.25},
        TypeError,
        "begin_scale: got float, expected a torch.Tensor",
    ),
    "token of int32": (
        {"token": torch.zeros(2, dtype=torch.int32)},
        TypeError,
        "token: got torch.int32, expected torch.int64",
    ),
    "token beyond the keys": (
        {"token": torch.tensor([0, 7])},
        ValueError,
        "token: got values from 0 to 7, expected 0 to 6",
    ),
    "scale is text": (
        {"scale": "1"},
        TypeError,
        "scale: got str, expected a float or None",
    ),
    "statistics is a name": (
        {"statistics": "mass"},
        TypeError,
        "statistics: got str, expected True or False",
    ),
}


@pytest.mark.parametrize(("change", "error", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("function", [memattn.cross_attention, memattn.explain])
def test_bad_argument_is_refused_in_one_sentence(function, change, error, sentence):
    with pytest.raises(error, match=f"^{sentence}$"):
        function(**{"query": QUERY, "key": KEY, "value": KEY, **change})


COLUMNS_REFUSED = {
    "key_columns is no tensor": (
        {"key_columns": None},
        TypeError,
        "key_columns: got NoneType, expected a torch.Tensor",
    ),
    "query has three axes": (
        {"query": QUERY[0]},
        ValueError,
        r"query: got shape \[3, 5, 8\], expected \[B, H, L, D\]",
    ),
    "no columns": (
        {"key_columns": KEY[:, :, :0]},
        ValueError,
        "query and key_columns: got shapes .*, expected at least one .*",
    ),
    "key_columns of another dtype": (
        {"key_columns": KEY.half()},
        TypeError,
        "key_columns: got torch.float16, expected the query's torch.float32",
    ),
    "key_columns of another batch": (
        {"key_columns": KEY[:1]},
        ValueError,
        r"key_columns: got shape \[1, 3, 7, 8\], expected \[2, 3, 7, 8\]",
    ),
    "logsumexp of padded rows": (
        {"logsumexp": torch.zeros(2, 3, 32)},
        ValueError,
        r"logsumexp: got shape \[2, 3, 32\], expected \[2, 3, 5\]",
    ),
    "logsumexp of integers": (
        {"logsumexp": torch.zeros(2, 3, 5, dtype=torch.int64)},
        TypeError,
        "logsumexp: got torch.int64, expected a floating dtype",
    ),
    "logsumexp on another device": (
        {"logsumexp": torch.zeros(2, 3, 5, device="meta")},
        ValueError,
        "logsumexp: got device meta, expected the query's cpu",
    ),
    "key_bias of all keys": (
        {"key_bias": torch.zeros(2, 9)},
        ValueError,
        r"key_bias: got shape \[2, 9\], expected \[2, 7\]",
    ),
    "key_bias of booleans": (
        {"key_bias": torch.ones(2, 7, dtype=torch.bool)},
        TypeError,
        "key_bias: got torch.bool, expected a floating dtype",
    ),
    "token beyond the columns": (
        {"token": torch.tensor([0, 7])},
        ValueError,
        "token: got values from 0 to 7, expected 0 to 6",
    ),
    "scale is a bool": (
        {"scale": True},
        TypeError,
        "scale: got bool, expected a float or None",
    ),
}


@pytest.mark.parametrize(
    ("change", "error", "sentence"), COLUMNS_REFUSED.values(), ids=COLUMNS_REFUSED
)
def test_bad_argument_of_column_statistics_is_refused_in_one_sentence(change, error, sentence):
    with pytest.raises(error, match=f"^{sentence}$"):
        memattn.column_statistics(**{"query": QUERY, "key_columns": KEY, **change})
