"""The scaffolding for compiled backends, around a backend written here with torch operations."""

import pytest
import torch

import memattn
from memattn.ops.contract import cross_attention_request
from memattn.ops.torch_library import cross_attention as torch_library

NAME = "memattn::cross_attention_example"
OP = torch_library.register("example")


def probabilities(query, key, key_bias, begin_scale, scale):
    scores = scale * query.float() @ key.float().transpose(2, 3)
    if begin_scale is not None:
        first = scores[..., :1] * begin_scale.float()[:, None, None, None]
        scores = torch.cat([first, scores[..., 1:]], dim=3)
    if key_bias is not None:
        scores = scores + key_bias.float()[:, None, None, :]
    return scores, scores.logsumexp(dim=3)


def heads_last(tensor, dtype):
    return tensor.to(dtype).transpose(1, 2).contiguous().transpose(1, 2)


@torch.library.impl(NAME, "default")
def forward(query, key, value, key_bias, begin_scale, token, scale, statistics, logsumexp):
    scores, lse = probabilities(query, key, key_bias, begin_scale, scale)
    probs = (scores - lse[..., None]).exp()
    empty = query.new_empty(0, dtype=torch.float32)
    column = empty
    if token is not None:
        index = token[:, None, None, None].expand(-1, *probs.shape[1:3], 1)
        column = probs.gather(3, index).squeeze(3)
    return (
        heads_last(probs @ value.float(), query.dtype),
        probs.sum(dim=2) if statistics else empty.clone(),
        torch.special.entr(probs).sum(dim=2) if statistics else empty.clone(),
        column,
        lse if logsumexp else empty.clone(),
    )


@torch.library.impl(f"{NAME}_backward", "default")
def backward(grad, query, key, value, key_bias, begin_scale, output, logsumexp, scale):
    scores, _ = probabilities(query, key, key_bias, begin_scale, scale)
    probs = (scores - logsumexp[..., None]).exp()
    grad, output = grad.float(), output.float()
    grad_value = probs.transpose(2, 3) @ grad
    grad_probs = grad @ value.float().transpose(2, 3)
    grad_scores = probs * (grad_probs - (grad * output).sum(dim=3, keepdim=True))
    if begin_scale is not None:
        first = grad_scores[..., :1] * begin_scale.float()[:, None, None, None]
        grad_scores = torch.cat([first, grad_scores[..., 1:]], dim=3)
    grad_query = scale * grad_scores @ key.float()
    grad_key = scale * grad_scores.transpose(2, 3) @ query.float()
    return tuple(
        heads_last(tensor, like.dtype)
        for tensor, like in ((grad_query, query), (grad_key, key), (grad_value, value))
    )


def inputs(dtype=torch.float32, layout="transposed"):
    tensors = [torch.randn(2, length, 3, 16, dtype=dtype) for length in (33, 7, 7)]
    if layout == "sliced":
        return [t.repeat(1, 1, 1, 2).transpose(1, 2)[..., ::2] for t in tensors]
    tensors = [t.transpose(1, 2) for t in tensors]
    return [t.contiguous() for t in tensors] if layout == "contiguous" else tensors


def request(tensors, **changes):
    defaults = {
        "key_bias": None,
        "begin_scale": None,
        "token": None,
        "scale": None,
        "statistics": True,
    }
    return cross_attention_request(*tensors, **{**defaults, **changes})


def extras():
    return {
        "key_bias": torch.randn(2, 7),
        "begin_scale": torch.tensor([0.5, 1.25]),
        "token": torch.tensor([3, 0]),
    }


@pytest.mark.parametrize("layout", ["transposed", "sliced", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("gradients", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("everything", [False, True], ids=["least", "everything"])
def test_op_passes_opcheck(layout, dtype, gradients, everything):
    tensors = [t.requires_grad_(gradients) for t in inputs(dtype, layout)]
    changes = extras() if everything else {"statistics": False}
    arguments = request(tensors, **changes)._replace(logsumexp=gradients)
    torch.library.opcheck(OP.op, tuple(arguments))


@pytest.mark.parametrize("layout", ["transposed", "sliced"])
def test_backward_op_passes_opcheck(layout):
    query, key, value = inputs(layout=layout)
    result = OP.forward(request((query, key, value))._replace(logsumexp=True))
    grad = torch.randn_like(result.output)
    arguments = (grad, query, key, value, None, None, result.output, result.logsumexp, 0.25)
    op = torch.ops.memattn.cross_attention_example_backward.default
    torch.library.opcheck(op, arguments)


def test_result_fields_are_those_asked_for():
    least = OP.forward(request(inputs(), statistics=False))
    assert least[1:] == (None, None, None, None)
    most = OP.forward(request(inputs(), **extras()))
    assert most.token_mass.shape == (2, 3, 7)
    assert most.token_map.shape == (2, 3, 33)
    assert most.logsumexp is None
    training = OP.forward(request([t.requires_grad_() for t in inputs()]))
    assert training.logsumexp.shape == (2, 3, 33)


@pytest.mark.parametrize("with_extras", [False, True], ids=["plain", "extras"])
def test_result_and_gradients_are_those_of_the_reference(with_extras):
    changes = extras() if with_extras else {}
    tensors = inputs()
    results, gradients = [], []
    for run in (OP.forward, lambda r: memattn.cross_attention(*r[:3], **changes)):
        leaves = [t.clone().requires_grad_() for t in tensors]
        result = run(request(leaves, **changes))
        results.append(result[:4])
        weights = torch.linspace(-1, 1, result.output.numel()).reshape(result.output.shape)
        gradients.append(torch.autograd.grad((result.output * weights).sum(), leaves))
    for pair in (*zip(*results, strict=True), *zip(*gradients, strict=True)):
        if pair[0] is not None:
            torch.testing.assert_close(*pair)


def test_logsumexp_is_that_of_the_reference():
    from memattn.kernels.reference import cross_attention as reference

    asked = request(inputs(), **extras())._replace(logsumexp=True)
    torch.testing.assert_close(OP.forward(asked).logsumexp, reference.forward(asked).logsumexp)


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_op_compiles_to_one_graph_with_its_gradient(backend):
    torch._dynamo.reset()

    def loss(query, key, value):
        result = OP.forward(request((query, key, value)))
        return result.output.square().sum() + result.token_mass.sum()

    graph = torch.compile(loss, fullgraph=True, backend=backend)
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(2):
            leaves = [t.requires_grad_() for t in inputs()]
            expected = torch.autograd.grad(loss(*leaves), leaves)
            for one, two in zip(torch.autograd.grad(graph(*leaves), leaves), expected, strict=True):
                torch.testing.assert_close(one, two)


def test_statistics_are_marked_non_differentiable():
    result = OP.forward(request([t.requires_grad_() for t in inputs()], **extras()))
    assert result.output.requires_grad
    assert not any(tensor.requires_grad for tensor in result[1:])


@pytest.mark.parametrize("name", ["key_bias", "begin_scale"])
def test_a_bias_that_needs_a_gradient_is_refused(name):
    changes = extras()
    changes[name].requires_grad_()
    asked = request(inputs(), **changes)
    sentence = f'it has no gradient for {name}; use backend="reference"'
    assert OP.why_not(asked).startswith(sentence)
    with torch.no_grad():
        assert OP.why_not(asked) is None
    with pytest.raises(RuntimeError, match=sentence):
        OP.op(*asked)


def test_forward_mode_is_refused():
    tensors = inputs()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(tensors[0], torch.ones_like(tensors[0]))
        reason = OP.why_not(request((dual, *tensors[1:])))
        assert OP.why_not(request(tensors)) is None
    assert reason.startswith('it has no forward-mode derivative; use backend="reference"')


def test_forward_mode_of_a_functional_transform_is_refused():
    query, key, value = inputs()
    reasons = []

    def run(query):
        reasons.append(OP.why_not(request((query, key, value))))
        return query

    torch.func.jvp(run, (query,), (torch.ones_like(query),))
    assert reasons[0].startswith("it has no forward-mode derivative")


def test_double_backward_is_refused():
    leaves = [t.requires_grad_() for t in inputs()]
    output = OP.forward(request(leaves)).output
    (first,) = torch.autograd.grad(output.square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match='no second derivative here; use backend="reference"'):
        torch.autograd.grad(first.sum(), leaves)
