import pytest
import torch

from memattn.benchmarks.cases import Case, inputs
from memattn.benchmarks.graphs import (
    Graph,
    calls_per_graph,
    cold_graph,
    copies,
    node_seconds,
    warm_graph,
)
from memattn.benchmarks.measurement import measure
from memattn.benchmarks.providers import Provider, plain_attention, providers
from memattn.benchmarks.shapes import SHAPES, Shape
from tests.gpus import on_gpu

SMALL = Shape("small", "none", batch=2, heads=2, queries=24, keys=7, dim=16, layers=1)


def test_copies_have_the_same_numbers_and_strides_in_other_memory():
    tensors = inputs(Case(SMALL, "fp32", "cpu"))
    made = copies(tensors, 3)
    assert len(made) == 3
    for one in made:
        for tensor, copy in zip(tensors, one, strict=True):
            assert torch.equal(copy, tensor)
            assert copy.stride() == tensor.stride()
    places = {tensor.data_ptr() for one in [tensors, *made] for tensor in one}
    assert len(places) == 4 * len(tensors)


@on_gpu
def test_the_calls_of_a_graph_move_several_times_the_cache():
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    for shape in SHAPES:
        moved = shape.bytes(torch.bfloat16)
        assert calls_per_graph(moved) * moved >= 3 * cache
    assert calls_per_graph(100 * cache) == 8


@on_gpu
def test_a_graph_is_replayed_whole_and_its_calls_read_their_own_copies():
    seen = []

    def call(tensor):
        seen.append(tensor.data_ptr())
        return (tensor * 2,)

    given = torch.arange(1.0, 5.0, device="cuda")
    warm, cold = warm_graph(call, [given], 5), cold_graph(call, [given], 5)
    assert len(set(seen[3:8])) == 1
    assert len(set(seen[-5:])) == 5
    for graph in (warm, cold):
        assert torch.equal(graph.result[0], given * 2)
        assert 0 < graph.seconds() < 1e-3
    given.fill_(3.0)
    warm.seconds()
    assert torch.equal(warm.result[0], given * 2)


@on_gpu
def test_kernel_time_leaves_the_host_out():
    case = Case(SMALL, "bf16", "cuda")
    ours = providers(case)[0]
    measured = measure(case, [ours, plain_attention("cuda")[0]], turns=2)[ours.name]
    assert [len(clock) for clock in measured[:3]] == [2, 2, 2]
    eager, warm = min(measured.eager[0]), min(measured.warm[0])
    assert 0 < warm < eager


@on_gpu
def test_who_cannot_be_captured_is_timed_as_programs_see_it_and_says_why():
    case = Case(SMALL, "bf16", "cuda")
    plain = plain_attention("cuda")[0].call

    def waits(query, key, value):
        torch.cuda.synchronize()
        return plain(query, key, value)

    measured = measure(case, [Provider("waits", "plain", waits)], turns=2)["waits"]
    assert len(measured.eager) == 2
    assert measured.warm == measured.cold == []
    assert "captur" in measured.not_captured
    # and the device goes on
    assert measure(case, [plain_attention("cuda")[0]], turns=2)["sdpa"].warm


class Gpu:
    """A GPU that comes to a graph too early after a short head start; counts what it is given."""

    def __init__(self, launch):
        self.launch, self.slept, self.clock = launch, [], 0.0

    def sleep(self, cycles):
        self.slept.append(cycles)

    def event(self, enable_timing):
        gpu = self

        class Event:
            def record(self):
                self.at = gpu.clock

            def query(self):
                return gpu.slept[-1] < gpu.launch

            def synchronize(self):
                pass

            def elapsed_time(self, end):
                return end.at - self.at

        return Event()

    def replay(self):
        self.clock += 8.0 + max(0, self.launch - self.slept[-1]) * 1e-6


@pytest.fixture
def early(monkeypatch):
    """Seconds of four calls on such a GPU, and the head starts that it was given."""

    def run(launch):
        gpu = Gpu(launch)
        monkeypatch.setattr(torch.cuda, "_sleep", gpu.sleep)
        monkeypatch.setattr(torch.cuda, "Event", gpu.event)
        return Graph(gpu, (), 4, None).seconds(), gpu.slept

    return run


def test_a_graph_that_was_not_launched_in_time_is_timed_again(early):
    enough = 2_000_000
    assert early(enough) == (pytest.approx(2e-3), [enough])
    assert early(3 * enough) == (pytest.approx(2e-3), [enough, 2 * enough, 4 * enough])


def test_a_graph_that_is_never_launched_in_time_is_one_sentence(early):
    with pytest.raises(RuntimeError, match="got a graph whose launch takes longer than 128000000"):
        early(10**12)


@on_gpu
def test_a_node_alone_costs_less_than_a_call_of_ours():
    case = Case(SMALL, "bf16", "cuda")
    ours = providers(case)[0]
    graph = warm_graph(ours.call, inputs(case), 64)
    assert 0 < node_seconds() < 2 * graph.seconds() < 1e-3
