"""Scores from a record are those of full attention matrices, captured apart and summed slowly."""

import math

import numpy as np
import pytest
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    PNDMScheduler,
)

import memattn
from memattn.detectors import (
    DETECTORS,
    AttentionEntropy,
    BrightEnding,
    LayerEntropy,
    NoiseMagnitude,
)
from tests.pipelines import generators, stable_diffusion

# numpy 2 about the Euler and Heun schedulers of diffusers
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

# Short, medium, and longer than the tokenizer's 16 tokens.
PROMPTS = ["a red fox", "the lazy dog by the sea, a blue house", "a fox " * 10]
NOISE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "steps_offset": 1,
}
SCHEDULERS = {
    "ddim": (lambda: DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False), 5),
    "ddim_v": (
        lambda: DDIMScheduler(
            **NOISE, clip_sample=False, set_alpha_to_one=False, prediction_type="v_prediction"
        ),
        5,
    ),
    "pndm": (lambda: PNDMScheduler(**NOISE, skip_prk_steps=True), 4),
    "euler": (lambda: EulerDiscreteScheduler(**NOISE), 4),
    "heun": (lambda: HeunDiscreteScheduler(**NOISE), 3),
}


PROVED = set()


def exactness_of(detector):
    """Marks the test that proves a detector exact; each class in `DETECTORS` has to have one."""

    def mark(test):
        PROVED.add(detector)
        return test

    return mark


class Capture:
    """Keeps the full attention matrices and raw outputs of every denoiser call, in float64.

    It multiplies the layers' own query and key projections itself and shares no code with memattn.
    """

    def __init__(self, unet):
        self.matrices = []  # one dict per call: layer -> [samples, heads, queries, tokens]
        self.outputs = []  # one per call: [2 * samples, channels, h, w]
        self._queries = {}
        self._keys = {}
        self._handles = [unet.register_forward_hook(self._end_call)]
        self._heads = {}
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                self._heads[name] = module.heads
                for projection, store in (("to_q", self._queries), ("to_k", self._keys)):
                    self._handles.append(
                        getattr(module, projection).register_forward_hook(
                            lambda _module, _args, output, name=name, store=store: store.update(
                                {name: output.double()}
                            )
                        )
                    )

    def _end_call(self, unet, args, output):
        matrices = {}
        for name, heads in self._heads.items():
            query, key = (
                x.unflatten(-1, (heads, -1)).transpose(1, 2)[x.shape[0] // 2 :]
                for x in (self._queries[name], self._keys[name])
            )
            logits = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
            matrices[name] = logits.softmax(dim=-1).numpy()
        self.matrices.append(matrices)
        self.outputs.append(output[0].double().numpy())

    def remove(self):
        for handle in self._handles:
            handle.remove()


def run(folder, scheduler, steps):
    """One recorded run of a tiny pipeline, and what was captured of an unrecorded one."""
    pipe = stable_diffusion(
        folder,
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4),  # unequal numbers of heads, as in SD 2
    )
    pipe.scheduler = scheduler()

    def generate():
        pipe(
            PROMPTS,
            num_inference_steps=steps,
            generator=generators(len(PROMPTS)),
            output_type="latent",
        )

    capture = Capture(pipe.unet)
    generate()
    capture.remove()
    with memattn.record(pipe) as record:
        generate()
    lengths = [min(16, len(pipe.tokenizer(prompt).input_ids)) for prompt in PROMPTS]
    return record, capture, lengths, pipe.scheduler


@pytest.fixture(scope="module", params=SCHEDULERS)
def runs(request, tmp_path_factory):
    return run(tmp_path_factory.mktemp("tokenizer"), *SCHEDULERS[request.param])


def entropy(distribution):
    return -sum(p * math.log(p) for p in distribution)


def noise_gaps(capture, scheduler, record):
    """Per call and sample, the gap in the noise [channels, h, w]."""
    gaps = []
    for output, timestep in zip(capture.outputs, record.timesteps, strict=True):
        unconditional, conditional = np.split(output, 2)
        gap = conditional - unconditional
        if scheduler.config.prediction_type == "v_prediction":
            gap = gap * math.sqrt(scheduler.alphas_cumprod[int(timestep)])
        gaps.append(gap)
    return gaps


def assert_scores(scores, expected):
    np.testing.assert_allclose(scores.numpy(), expected, rtol=2e-5, atol=1e-7)


@exactness_of(LayerEntropy)
def test_layer_entropy_is_that_of_full_matrices(runs):
    record, capture, _, _ = runs
    layer = "down_blocks.1.attentions.1.transformer_blocks.0.attn2"
    assert record.layers.index(layer) == 3
    matrices = capture.matrices[0][layer]
    assert_scores(LayerEntropy()(record), [entropy(m.mean(axis=(0, 1))) for m in matrices])


@exactness_of(AttentionEntropy)
@pytest.mark.parametrize("second_term", ["signed", "absolute"])
def test_attention_entropy_is_that_of_full_matrices(runs, second_term):
    record, capture, lengths, _ = runs
    calls = len(capture.matrices)
    expected = []
    for sample, length in enumerate(lengths):
        whole, summary = [], []
        for matrices in capture.matrices:
            every_head = [
                head.mean(axis=0) for layer in matrices.values() for head in layer[sample]
            ]
            mean = np.mean(every_head, axis=0)
            whole.append(entropy(mean))
            summary.append(-sum(p * math.log(p) for p in mean[length - 1 :]))
        late = range(calls - max(1, round(calls / 5)), calls)
        if second_term == "signed":
            change = np.mean([summary[t] for t in late]) - summary[0]
        else:
            change = np.mean([abs(summary[t] - summary[0]) for t in late])
        expected.append(np.mean([whole[t] for t in late]) + change)
    assert_scores(AttentionEntropy(second_term=second_term)(record), expected)


@exactness_of(NoiseMagnitude)
@pytest.mark.parametrize("calls", ["first", 2, "all"])
def test_noise_magnitude_is_that_of_the_raw_outputs(runs, calls):
    record, capture, _, scheduler = runs
    gaps = noise_gaps(capture, scheduler, record)
    used = {"first": gaps[:1], "all": gaps}.get(calls, gaps[:2])
    expected = np.mean([[np.linalg.norm(sample) for sample in gap] for gap in used], axis=0)
    assert_scores(NoiseMagnitude(calls=calls)(record), expected)


@exactness_of(BrightEnding)
@pytest.mark.parametrize("calls", ["first", "all"])
def test_bright_ending_is_that_of_full_matrices(runs, calls):
    record, capture, lengths, scheduler = runs
    gaps = noise_gaps(capture, scheduler, record)
    last = capture.matrices[-1]
    expected = []
    for sample, length in enumerate(lengths):
        maps = [
            last[f"down_blocks.0.attentions.{i}.transformer_blocks.0.attn2"][sample]
            .mean(axis=0)[:, length - 1]
            .reshape(8, 8)
            for i in (0, 1)
        ]
        mask = np.mean(maps, axis=0)
        used = gaps[:1] if calls == "first" else gaps
        expected.append(np.mean([np.linalg.norm(gap[sample] * mask) / mask.mean() for gap in used]))
        np.testing.assert_allclose(BrightEnding().mask(record)[sample].numpy(), mask, rtol=2e-5)
    assert_scores(BrightEnding(calls=calls)(record), expected)


def test_captured_run_has_every_call_of_the_record(runs):
    record, capture, _, _ = runs
    assert record.calls == len(capture.matrices)


def test_every_detector_is_proved_exact():
    assert {type(detector) for detector in DETECTORS} <= PROVED
