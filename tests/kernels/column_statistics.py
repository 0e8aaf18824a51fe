"""Inputs of `column_statistics`, and the runs that judge a result: exact and eager."""

import torch

from memattn.testing import assert_within_error_budget
from memattn.types import ColumnStatisticsResult
from tests.kernels.cross_attention import double, worse

# Keys of a joint layer beside the columns that are asked about: its image tokens.
OTHERS = 40


def inputs(shape, dtype=torch.float32, device="cpu"):
    """Query and all keys as a processor passes them; the first keys are the columns."""
    batch, heads, queries, columns, dim = shape
    return tuple(
        torch.randn(batch, length, heads, dim, dtype=dtype, device=device).transpose(1, 2)
        for length in (queries, columns + OTHERS)
    )


def extras(shape, device="cpu"):
    """A bias with a removed column, and a token for each sample."""
    batch, _, _, columns, _ = shape
    key_bias = torch.randn(batch, columns, device=device)
    if columns > 1:
        key_bias[:, -1] = -torch.inf
    return {"key_bias": key_bias, "token": torch.arange(batch, device=device) % columns}


def call_of(shape, dtype=torch.float32, device="cpu", names=("logsumexp", "key_bias", "token")):
    """Query and key columns, and those arguments of `column_statistics` that are named."""
    query, key = inputs(shape, dtype, device)
    columns = shape[3]
    arguments = extras(shape, device)
    scores = query.double() @ key.double().mT * query.shape[3] ** -0.5
    if "key_bias" in names:
        scores[..., :columns] += arguments["key_bias"].double()[:, None, None, :]
    arguments["logsumexp"] = scores.logsumexp(3).float()
    return (query, key[:, :, :columns]), {k: v for k, v in arguments.items() if k in names}


def explicit(query, key_columns, logsumexp=None, *, key_bias=None, token=None, scale=None):
    """The definition, with everything in memory, in the dtype of the inputs."""
    scale = query.shape[3] ** -0.5 if scale is None else scale
    scores = query @ key_columns.mT * scale
    if key_bias is not None:
        scores = scores + key_bias[:, None, None, :]
    normaliser = scores.logsumexp(3) if logsumexp is None else logsumexp
    probs = (scores - normaliser[..., None]).exp()
    column = None
    if token is not None:
        index = token[:, None, None, None].expand(-1, *probs.shape[1:3], 1)
        column = probs.gather(3, index).squeeze(3)
    return ColumnStatisticsResult(probs.sum(dim=2), torch.special.entr(probs).sum(dim=2), column)


def assert_result_within_budget(result, tensors, arguments):
    """Every field that the result has, against the definition on the same inputs."""
    exact = explicit(*(t.double() for t in tensors), **double(arguments))
    # float32 whatever the inputs: the budget is that of a float32 run, the further off of two.
    query, key = (t.float() for t in tensors)
    scale = query.shape[3] ** -0.5
    runs = [
        explicit(query, key, **arguments),
        explicit((query * scale).flip(3), key.flip(3), **{"scale": 1.0, **arguments}),
    ]
    for name in ("token_mass", "token_entropy"):
        actual = getattr(result, name)
        assert actual.dtype == torch.float32
        assert_within_error_budget(
            actual, exact=getattr(exact, name), eager=worse(runs, exact, name)
        )
    if result.token_map is not None:
        # A few probabilities of any size: relative errors, so that each of them counts.
        assert result.token_map.dtype == torch.float32
        size = exact.token_map.clamp_min(1e-30)
        error = ((result.token_map - exact.token_map) / size).abs().max()
        eager = max(((run.token_map - exact.token_map) / size).abs().max() for run in runs)
        assert error <= 2 * eager + 4 * torch.finfo(torch.float32).eps
