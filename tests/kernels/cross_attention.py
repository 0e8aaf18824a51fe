"""Inputs of `cross_attention`, and the two runs that judge a result: exact and eager."""

import torch

from memattn.testing import assert_within_error_budget, explicit_cross_attention

DTYPES = [torch.float32, torch.bfloat16, torch.float16]

# batch, heads, queries, keys, head dimension
SHAPES = {
    "sd_64px": (2, 3, 64, 77, 32),
    "sd14_level3": (1, 2, 64, 77, 160),
    "one_key": (2, 2, 63, 1, 8),
    "one_query": (2, 2, 1, 77, 40),
    "long_prompt": (1, 2, 130, 333, 24),
    "many_blocks": (1, 1, 2500, 5, 8),
}


def dtype_of(backend):
    """Of tests that are about no dtype: float32, or what `cuda` takes instead."""
    return torch.float16 if backend == "cuda" else torch.float32


def inputs(shape, dtype=torch.float32, device="cpu"):
    """Query, key and value as a processor passes them: transposed views of (B, L, H, D)."""
    batch, heads, queries, keys, dim = shape
    return tuple(
        torch.randn(batch, length, heads, dim, dtype=dtype, device=device).transpose(1, 2)
        for length in (queries, keys, keys)
    )


def extras(shape, device="cpu"):
    """A key bias with a removed key, a begin scale and a token for each sample."""
    batch, _, _, keys, _ = shape
    key_bias = torch.randn(batch, keys, device=device)
    if keys > 1:
        key_bias[:, -1] = -torch.inf
    return {
        "key_bias": key_bias,
        "begin_scale": torch.linspace(0.5, 1.5, batch, device=device),
        "token": torch.arange(batch, device=device) % keys,
    }


def double(arguments):
    return {k: v.double() if v.is_floating_point() else v for k, v in arguments.items()}


def assert_result_within_budget(result, tensors, arguments):
    """Every field that the result has, against explicit attention on the same inputs."""
    exact = explicit_cross_attention(*(t.double() for t in tensors), **double(arguments))
    # Statistics stay float32 whatever the inputs: their budget is that of a float32 run.
    query, key, value = (t.float() for t in tensors)
    backwards = (query.flip(3) * query.shape[3] ** -0.5, key.flip(3), value)
    runs = [
        explicit_cross_attention(query, key, value, **arguments),
        explicit_cross_attention(*backwards, **arguments, scale=1.0),
    ]
    assert result.output.dtype == tensors[0].dtype
    eager = worse(runs, exact, "output")
    if result.output.dtype != torch.float32:
        eager = explicit_cross_attention(*tensors, **arguments).output
    assert_within_error_budget(result.output, exact=exact.output, eager=eager)
    for name in ("token_mass", "token_entropy", "logsumexp"):
        actual = getattr(result, name)
        if actual is not None:
            assert actual.dtype == torch.float32
            eager = worse(runs, exact, name)
            assert_within_error_budget(actual, exact=getattr(exact, name), eager=eager)
    if result.token_map is not None:
        # A few probabilities of any size: relative errors, so that each of them counts.
        assert result.token_map.dtype == torch.float32
        size = exact.token_map.clamp_min(1e-30)
        error = ((result.token_map - exact.token_map) / size).abs().max()
        eager = max(((run.token_map - exact.token_map) / size).abs().max() for run in runs)
        assert error <= 2 * eager + 4 * torch.finfo(torch.float32).eps


def worse(runs, exact, name):
    """The field of the run that is further off: one alone is lucky too often.

    They differ in the order of a logit's sum, and in whether its terms or the sum are scaled.
    """
    true = getattr(exact, name)
    return max((getattr(run, name) for run in runs), key=lambda field: (field - true).abs().max())


def assert_gradients_within_budget(attention, tensors, arguments):
    """Gradients of `attention(query, key, value, **arguments)` for a random incoming gradient.

    The budget is `assert_within_error_budget`'s, and four roundings of the terms that cancel in
    dP - rowsum(P dP): with few keys nothing may be left of them.
    """
    grad_output = torch.randn_like(tensors[0])
    actual = gradients(attention, tensors, grad_output, arguments)
    eager = gradients(explicit_cross_attention, tensors, grad_output, arguments)
    exact_tensors = [t.double() for t in tensors]
    exact = gradients(
        explicit_cross_attention, exact_tensors, grad_output.double(), double(arguments)
    )
    cancelling = terms(exact_tensors, grad_output.double(), double(arguments))
    for one, true, plain, terms_, tensor in zip(
        actual, exact, eager, cancelling, tensors, strict=True
    ):
        assert one.dtype == tensor.dtype
        assert one.shape == tensor.shape
        error = (one.double() - true).abs().max().item()
        budget = 2 * (plain.double() - true).abs().max().item()
        budget += torch.finfo(one.dtype).eps * true.abs().max().item()
        budget += 4 * torch.finfo(torch.float32).eps * terms_.max().item()
        assert error <= budget, f"got an error of {error:.3e}, expected at most {budget:.3e}"


def gradients(attention, tensors, grad_output, arguments):
    leaves = [t.detach().requires_grad_() for t in tensors]
    return torch.autograd.grad(attention(*leaves, **arguments).output, leaves, grad_output)


def terms(tensors, grad_output, arguments):
    """How large the terms of each gradient's sums are, added as independent errors add."""
    query, key, value = tensors
    identity = torch.eye(key.shape[2], dtype=key.dtype, device=key.device)
    probs = explicit_cross_attention(
        query, key, identity.expand(*key.shape[:2], -1, -1), **arguments
    )
    probs = probs.output
    grad_probs = (grad_output.square() @ value.square().mT).sqrt()
    grad_scores = probs * (grad_probs + (probs * grad_probs).sum(dim=3, keepdim=True))
    scale = query.shape[3] ** -0.5
    return (
        scale * (grad_scores.square() @ key.square()).sqrt(),
        scale * (grad_scores.square().mT @ query.square()).sqrt(),
        (probs.square().mT @ grad_output.square()).sqrt(),
    )
