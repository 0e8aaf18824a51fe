"""What every backend may rely on: arguments checked once, in one sentence."""

import torch
from torch import Tensor

from memattn.types import ColumnStatisticsRequest, CrossAttentionRequest

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def cross_attention_request(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    key_bias: Tensor | None,
    begin_scale: Tensor | None,
    token: Tensor | None,
    scale: float | None,
    statistics: bool,
) -> CrossAttentionRequest:
    """Check the arguments of `cross_attention` and fill in the default scale."""
    _check_operands(query, key=key, value=value)
    batch, keys = query.shape[0], key.shape[2]
    _check_optional("key_bias", key_bias, query, (batch, keys))
    _check_optional("begin_scale", begin_scale, query, (batch,))
    _check_floating(key_bias=key_bias, begin_scale=begin_scale)
    _check_token(token, query, batch, keys)
    if not isinstance(statistics, bool):
        raise TypeError(f"statistics: got {type(statistics).__name__}, expected True or False")
    return CrossAttentionRequest(
        query=query,
        key=key,
        value=value,
        key_bias=key_bias,
        begin_scale=begin_scale,
        token=token,
        scale=_checked_scale(scale, query),
        statistics=statistics,
        logsumexp=False,
    )


def column_statistics_request(
    query: Tensor,
    key_columns: Tensor,
    logsumexp: Tensor | None,
    *,
    key_bias: Tensor | None,
    token: Tensor | None,
    scale: float | None,
) -> ColumnStatisticsRequest:
    """Check the arguments of `column_statistics` and fill in the default scale."""
    _check_operands(query, key_columns=key_columns)
    batch, columns = query.shape[0], key_columns.shape[2]
    _check_optional("logsumexp", logsumexp, query, tuple(query.shape[:3]))
    _check_optional("key_bias", key_bias, query, (batch, columns))
    _check_floating(logsumexp=logsumexp, key_bias=key_bias)
    _check_token(token, query, batch, columns)
    return ColumnStatisticsRequest(
        query=query,
        key_columns=key_columns,
        logsumexp=logsumexp,
        key_bias=key_bias,
        token=token,
        scale=_checked_scale(scale, query),
    )


def _check_operands(query: Tensor, **keys: Tensor) -> None:
    """Check the query, and keys and values [B, H, L, D] of one length that go with it."""
    for name, tensor in (("query", query), *keys.items()):
        _check_tensor(name, tensor)
        if tensor.ndim != 4:
            raise ValueError(f"{name}: got shape {_shape(tensor)}, expected [B, H, L, D]")
    if query.dtype not in DTYPES:
        raise TypeError(f"query: got {query.dtype}, expected one of {_names(DTYPES)}")
    first_name, first = next(iter(keys.items()))
    batch, heads, queries, dim = query.shape
    length = first.shape[2]
    if min(heads, queries, length, dim) < 1:
        raise ValueError(
            f"query and {first_name}: got shapes {_shape(query)} and {_shape(first)}, "
            "expected at least one head, query, key and dimension"
        )
    for name, tensor in keys.items():
        _check_like(name, tensor, query)
        if tensor.dtype != query.dtype:
            raise TypeError(f"{name}: got {tensor.dtype}, expected the query's {query.dtype}")
        expected = (batch, heads, length, dim)
        if tensor.shape != expected:
            raise ValueError(f"{name}: got shape {_shape(tensor)}, expected {list(expected)}")


def _check_tensor(name: str, tensor: object) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"{name}: got {type(tensor).__name__}, expected a torch.Tensor")


def _check_like(name: str, tensor: Tensor, query: Tensor) -> None:
    if tensor.device != query.device:
        raise ValueError(f"{name}: got device {tensor.device}, expected the query's {query.device}")


def _check_optional(
    name: str, tensor: Tensor | None, query: Tensor, expected: tuple[int, ...]
) -> None:
    if tensor is None:
        return
    _check_tensor(name, tensor)
    _check_like(name, tensor, query)
    if tensor.shape != expected:
        raise ValueError(f"{name}: got shape {_shape(tensor)}, expected {list(expected)}")


def _check_floating(**tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and not tensor.is_floating_point():
            raise TypeError(f"{name}: got {tensor.dtype}, expected a floating dtype")


def _checked_scale(scale: float | None, query: Tensor) -> float:
    if scale is None:
        default: float = query.shape[3] ** -0.5
        return default
    if isinstance(scale, bool) or not isinstance(scale, (int, float)):
        raise TypeError(f"scale: got {type(scale).__name__}, expected a float or None")
    return float(scale)


def _check_token(token: Tensor | None, query: Tensor, batch: int, keys: int) -> None:
    _check_optional("token", token, query, (batch,))
    if token is None:
        return
    if token.dtype != torch.int64:
        raise TypeError(f"token: got {token.dtype}, expected torch.int64")
    # Elsewhere the values can only be read with a host sync, or not at all.
    if token.device.type != "cpu" or torch.compiler.is_compiling() or batch == 0:
        return
    low, high = int(token.min()), int(token.max())
    if low < 0 or high >= keys:
        raise ValueError(f"token: got values from {low} to {high}, expected 0 to {keys - 1}")


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)


def _names(dtypes: tuple[torch.dtype, ...]) -> str:
    return ", ".join(str(dtype) for dtype in dtypes)
