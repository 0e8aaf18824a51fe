"""Which denoisers are recorded, and how often: a lent GPU is lent for minutes."""

import pytest

from memattn.benchmarks import bench_recording
from memattn.benchmarks.host_calls import HostCalls
from memattn.benchmarks.paired import FEWEST_PAIRS


def subjects(device):
    return {**bench_recording._SUBJECTS[device], **bench_recording._SLOW_SUBJECTS[device]}


def test_a_gpu_has_few_steps_and_rounds_enough_for_an_interval():
    for name, subject in subjects("cuda").items():
        assert FEWEST_PAIRS < 8 <= subject.rounds <= 10, name
    assert bench_recording._GPU_RUN["steps"] == 5


def test_a_processors_rounds_are_those_of_the_published_results():
    rounds = {name: subject.rounds for name, subject in subjects("cpu").items()}
    assert rounds == {
        "testbed": 16,
        "sd14-fp32": 10,
        "sdxl-512px-bf16": 6,
        "sd14-bf16": 10,
        "sdxl-bf16": 6,
    }


class Denoiser:
    """On a GPU, as far as anybody asks."""

    device = "cuda"

    def __init__(self, steps):
        self.steps = steps

    def with_steps(self, steps):
        return Denoiser(steps)

    def run(self):
        return self.steps


@pytest.mark.parametrize("steps", [1, 5])
def test_one_step_is_profiled_however_many_are_timed(monkeypatch, steps):
    monkeypatch.setattr(bench_recording.arms, "recorded", lambda denoiser: denoiser.run() + 1)
    monkeypatch.setattr(bench_recording, "host_calls", lambda call: HostCalls(call(), 0))
    told = bench_recording._host_calls(Denoiser(steps))
    assert (told["launches"], told["stock_launches"]) == (2, 1)


def test_a_call_that_cannot_be_captured_costs_its_own_comparison_alone(monkeypatch):
    def refuse(denoiser):
        raise RuntimeError("the stream is capturing")

    asked = []
    monkeypatch.setattr(bench_recording, "_graphs", refuse)
    monkeypatch.setattr(bench_recording.arms, "verify", asked.append)
    monkeypatch.setattr(bench_recording, "_memory", lambda denoiser: {})
    monkeypatch.setattr(
        bench_recording, "in_rounds", lambda calls, rounds: {name: [] for name in calls}
    )
    subject = bench_recording._SUBJECTS["cpu"]["testbed"]
    graph = {"captured": bench_recording._EAGER_AND_CAPTURED["one call as a CUDA graph"]}
    subject = subject._replace(comparisons={**subject.comparisons, **graph})
    measured = bench_recording._measure(subject)
    assert set(measured.rounds) == set(bench_recording.arms.arms(asked[0]))
    with pytest.raises(RuntimeError, match="the stream is capturing"):
        bench_recording.test_recording(subject, "captured", {subject.build: measured}, None)
