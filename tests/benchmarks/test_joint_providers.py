import pytest
import torch

from memattn.benchmarks.cases import Case, inputs
from memattn.benchmarks.joint_providers import providers
from memattn.benchmarks.measurement import measure
from memattn.benchmarks.providers import Unavailable
from memattn.benchmarks.shapes import Shape
from memattn.benchmarks.verification import check, first_result, truth

JOINT = Shape("small", "none", 2, 3, queries=50, keys=50, dim=16, layers=1, text=7)
CASES = [Case(JOINT, dtype, "cpu") for dtype in ("fp32", "bf16")]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_provider_gives_the_right_result(case):
    tensors, expected = inputs(case), truth(case)
    for provider in providers(case):
        check(provider, first_result(provider, tensors), expected)


def test_a_kernel_takes_part_with_the_texts_statistics_and_alone():
    names = [provider.name for provider in providers(CASES[0])]
    assert names[0].endswith("_on_flash")
    assert names[1:] == ["sdpa", "sdpa_flash"]


def test_the_truth_is_of_the_images_queries_and_the_texts_columns():
    query, key, value = (tensor.double() for tensor in inputs(CASES[0]))
    probs = (query @ key.mT / 4).softmax(dim=3)
    expected = truth(CASES[0]).exact
    image = probs[:, :, 7:]
    ends = [(0, 0), (1, 2)]  # the first and the last head
    for place, (sample, head) in enumerate(ends):
        torch.testing.assert_close(
            expected.output[place, 0], image[sample, head] @ value[sample, head]
        )
        columns = image[sample, head, :, :7]
        torch.testing.assert_close(expected.token_mass[place, 0], columns.sum(dim=0))
        entropy = -(columns * columns.log()).sum(dim=0)
        torch.testing.assert_close(expected.token_entropy[place, 0], entropy)


@pytest.mark.parametrize("name", ["token_mass", "token_entropy"])
def test_wrong_statistics_of_the_last_head_are_refused(name):
    tensors, expected = inputs(CASES[0]), truth(CASES[0])
    ours = providers(CASES[0])[0]
    result = first_result(ours, tensors)
    getattr(result, name)[-1, -1, -1] *= 1.001
    with pytest.raises(AssertionError, match=f"_on_flash, {name}: got an error of"):
        check(ours, result, expected)


def test_a_kernel_that_torch_refuses_is_unavailable():
    # what the CPU's flash attention does not take
    whole = Case(JOINT._replace(batch=1, heads=1), "fp32", "cpu")
    ours = providers(whole)[0]
    with pytest.raises(Unavailable):
        ours.call(*(tensor.to(torch.int32) for tensor in inputs(whole)))


def test_it_is_timed_like_the_others():
    outcomes = measure(CASES[0], providers(CASES[0]), turns=2)
    assert all(len(measured.eager) == 2 for measured in outcomes.values())
