"""Cross-attention with token statistics in eager torch: the meaning every other backend matches."""

import torch
import torch.nn.functional as F

from memattn.kernels.reference.softmax import QUERY_BLOCK, accumulation_dtype, softmax
from memattn.types import CrossAttentionRequest, CrossAttentionResult


def why_not(request: CrossAttentionRequest) -> str | None:
    """Say why this backend cannot run a checked request: it always can."""
    return None


def forward(request: CrossAttentionRequest) -> CrossAttentionResult:
    """Run the request; without statistics it is torch's own attention."""
    plain = not request.statistics and not request.logsumexp and request.token is None
    # Autocast would round the float32 products below, or change the output's dtype.
    with torch.autocast(request.query.device.type, enabled=False):
        if plain and request.begin_scale is None:
            return _plain_attention(request)
        return _attention_with_statistics(request)


def _plain_attention(request: CrossAttentionRequest) -> CrossAttentionResult:
    query, key, value, key_bias = request[:4]
    mask = None
    if key_bias is not None:
        # The result does not depend on a shift of the bias; what is left fits the query's dtype.
        top = key_bias.detach().amax(dim=1, keepdim=True)  # [B, 1]
        removed = top == -torch.inf
        shifted = (key_bias - top.masked_fill(removed, 0.0)).masked_fill(removed, 0.0)
        mask = shifted.to(query.dtype)[:, None, None, :]
        # Not every kernel behind this call promises zeros, or gradients without nan, in a row
        # without keys: there it attends to zeros. The values are the small side.
        value = value.masked_fill(removed[:, :, None, None], 0.0)
    output = F.scaled_dot_product_attention(query, key, value, mask, scale=request.scale)
    output = output.transpose(1, 2).contiguous().transpose(1, 2)
    return CrossAttentionResult(output, None, None, None, None)


def _attention_with_statistics(request: CrossAttentionRequest) -> CrossAttentionResult:
    batch = request.query.shape[0]
    samples = [_one_sample(request, index) for index in range(batch)]
    if not samples:
        return _empty_batch(request)
    output, mass, entropy, token_map, logsumexp = zip(*samples, strict=True)
    return CrossAttentionResult(
        torch.stack(output).transpose(1, 2),
        torch.stack(mass) if request.statistics else None,
        torch.stack(entropy) if request.statistics else None,
        torch.stack(token_map) if request.token is not None else None,
        torch.stack(logsumexp) if request.logsumexp else None,
    )


def _one_sample(request: CrossAttentionRequest, index: int) -> CrossAttentionResult:
    """Sample `index` of the request; the tensors of its result have no batch axis."""
    dtype = accumulation_dtype(request.query)
    key, value = request.key[index].to(dtype), request.value[index].to(dtype)  # [H, Lk, D]
    begin_scale = None if request.begin_scale is None else request.begin_scale[index].to(dtype)
    bias = None if request.key_bias is None else request.key_bias[index].to(dtype)  # [Lk]
    token = None if request.token is None else request.token[index : index + 1]
    output, mass, entropy, token_map, logsumexp = [], [], [], [], []
    for block in request.query[index].split(QUERY_BLOCK, dim=1):  # [H, block, D]
        probs, surprise, normaliser = softmax(
            block.to(dtype) * request.scale, key, bias, begin_scale
        )
        output.append((probs @ value).transpose(0, 1).to(block.dtype))
        if request.statistics:
            mass.append(probs.sum(dim=1))
            entropy.append((probs * surprise).sum(dim=1))
        if token is not None:
            token_map.append(probs.index_select(2, token).squeeze(2))
        logsumexp.append(normaliser)
    return CrossAttentionResult(
        torch.cat(output),  # [Lq, H, D]
        torch.stack(mass).sum(dim=0) if request.statistics else None,
        torch.stack(entropy).sum(dim=0) if request.statistics else None,
        torch.cat(token_map, dim=1) if token is not None else None,
        torch.cat(logsumexp, dim=1),
    )


def _empty_batch(request: CrossAttentionRequest) -> CrossAttentionResult:
    """The result for a batch of no samples."""
    _, heads, queries, dim = request.query.shape
    keys = request.key.shape[2]
    empty = request.query.new_empty((0,), dtype=accumulation_dtype(request.query))
    return CrossAttentionResult(
        request.query.new_empty((0, queries, heads, dim)).transpose(1, 2),
        empty.reshape(0, heads, keys) if request.statistics else None,
        empty.reshape(0, heads, keys) if request.statistics else None,
        empty.reshape(0, heads, queries) if request.token is not None else None,
        empty.reshape(0, heads, queries) if request.logsumexp else None,
    )
