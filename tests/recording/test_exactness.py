"""Recorded numbers against a slow, separate computation from full attention matrices."""

import pytest
import torch

from memattn.recording import record
from tests import pipelines

PROMPTS = ["a red fox", "the lazy dog by the sea"]
STEPS = 3


def sharpen(unet):
    """Spread the logits: random weights alone give attention that is uniform in all but name."""
    for name, parameter in unet.named_parameters():
        if name.endswith(("attn2.to_q.weight", "attn2.to_k.weight")):
            parameter.data.mul_(12)


def slow_run(pipe, **call):
    """Full attention matrices [calls][layer name] of the conditional rows, and raw outputs."""
    captured, outputs, handles = {}, [], []
    for name, module in pipe.unet.named_modules():
        if name.endswith(("attn2.to_q", "attn2.to_k")):
            captured[name] = []
            handles.append(
                module.register_forward_hook(
                    lambda _, __, output, name=name: captured[name].append(output.double())
                )
            )
    handles.append(pipe.unet.register_forward_hook(lambda _, __, out: outputs.append(out[0])))
    try:
        pipe(generator=pipelines.generators(4), output_type="latent", **call)
    finally:
        for handle in handles:
            handle.remove()
    guided = pipe.do_classifier_free_guidance
    attention = []
    for step in range(len(outputs)):
        layers = {}
        for name in [name[: -len(".to_q")] for name in captured if name.endswith(".to_q")]:
            heads = pipe.unet.get_submodule(name).heads
            query, key = (
                captured[f"{name}.{part}"][step].unflatten(-1, (heads, -1)).transpose(1, 2)
                for part in ("to_q", "to_k")
            )
            if guided:
                query, key = query.chunk(2)[1], key.chunk(2)[1]
            logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
            layers[name] = logits.softmax(-1)  # [B, H, Lq, Lk]
        attention.append(layers)
    return attention, outputs


@pytest.fixture(
    params=["stable_diffusion", "stable_diffusion_2", "stable_diffusion_xl"], name="build"
)
def _build(request):
    return getattr(pipelines, request.param)


def test_record_equals_the_full_attention_matrices(build, tmp_path):
    pipe = build(tmp_path)
    sharpen(pipe.unet)
    call = {
        "prompt": PROMPTS,
        "num_images_per_prompt": 2,
        "num_inference_steps": STEPS,
        "height": 16,
        "width": 16,
    }
    attention, outputs = slow_run(pipe, **call)
    with record(pipe, heads=True, entropy_per_token=True, map_layers=range(3)) as recorded:
        pipe(generator=pipelines.generators(4), output_type="latent", **call)

    assert set(recorded.layers) == set(attention[0])
    for step, layers in enumerate(attention):
        head = 0
        for n, name in enumerate(recorded.layers):
            p = layers[name]
            surprise = torch.special.entr(p)
            heads, queries = p.shape[1], p.shape[2]
            assert recorded.layer_heads[n] == heads
            assert recorded.layer_queries[n] == queries
            close(recorded.token_mass[step, n], p.sum(2).mean(1))
            close(recorded.entropy[step, n], surprise.sum(-1).mean((1, 2)))
            close(recorded.token_entropy[step, n], surprise.sum(2).mean(1))
            of_heads = slice(head, head + heads)
            close(recorded.head_token_mass[step, of_heads], p.sum(2).transpose(0, 1))
            close(recorded.head_entropy[step, of_heads], surprise.sum(-1).mean(2).T)
            close(recorded.attention()[step, n], p.mean((1, 2)))
            head += heads
        every_head = torch.cat([p.mean(2) for p in layers.values()], dim=1)
        close(recorded.mean_attention()[step], every_head.mean(1))
        unconditional, conditional = outputs[step].double().chunk(2)
        close(recorded.gap_squared[step], (conditional - unconditional).square().sum(1))

    lengths = recorded.prompt_lengths
    assert lengths.tolist() == [5, 5, 8, 8]
    assert list(recorded.token_maps) == list(recorded.layers[:3])
    for name, token_map in recorded.token_maps.items():
        p = attention[-1][name]
        ends = torch.stack([p[b, :, :, lengths[b] - 1].mean(0) for b in range(4)])
        close(token_map.flatten(1), ends)
        assert token_map.shape[1] == token_map.shape[2]


def test_record_of_an_unguided_run_holds_all_rows_and_no_gap(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    sharpen(pipe.unet)
    call = {
        "prompt": PROMPTS,
        "num_images_per_prompt": 2,
        "num_inference_steps": STEPS,
        "guidance_scale": 1.0,
    }
    attention, _ = slow_run(pipe, **call)
    with record(pipe) as recorded:
        pipe(generator=pipelines.generators(4), output_type="latent", **call)
    assert recorded.gap_squared is None
    assert recorded.samples == 4
    for step, layers in enumerate(attention):
        for n, name in enumerate(recorded.layers):
            close(recorded.token_mass[step, n], layers[name].sum(2).mean(1))


def close(recorded, expected):
    """Equal within what float32 rounding in the runs before allows."""
    torch.testing.assert_close(recorded.double(), expected, rtol=2e-3, atol=2e-4)
