"""The public op under torch.compile: one graph, no recompiles, the same numbers."""

import pytest
import torch

import memattn


def inputs(queries=64):
    return tuple(torch.randn(2, length, 2, 16).transpose(1, 2) for length in (queries, 77, 77))


def compiled(backend):
    torch._dynamo.reset()

    def both(query, key, value, key_bias, token):
        full = memattn.cross_attention(query, key, value, key_bias=key_bias, token=token)
        plain = memattn.cross_attention(query, key, value, statistics=False)
        return full.output, full.token_mass, full.token_entropy, full.token_map, plain.output

    return both, torch.compile(both, fullgraph=True, backend=backend)


def check(backend, **tolerance):
    eager, graph = compiled(backend)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            arguments = (*inputs(), torch.randn(2, 77), torch.randint(77, (2,)))
            for one, two in zip(eager(*arguments), graph(*arguments), strict=True):
                torch.testing.assert_close(one, two, **tolerance)


def test_compiles_to_one_graph_without_recompiles():
    check("aot_eager", rtol=0, atol=0)


@pytest.mark.slow
def test_inductor_gives_the_same_numbers():
    check("inductor")


def test_compiled_gradients_are_the_eager_ones():
    torch._dynamo.reset()

    def loss(query, key, value):
        # Statistics have gradients on this backend only.
        result = memattn.cross_attention(query, key, value, backend="reference")
        return result.output.square().sum() + result.token_entropy[..., 1].sum()

    gradients = []
    tensors = inputs()
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaves = [t.clone().requires_grad_() for t in tensors]
        gradients.append(torch.autograd.grad(function(*leaves), leaves))
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)
