import pytest
import torch
from diffusers import UNet2DConditionModel

from memattn.benchmarks.cases import (
    Case,
    cross_attention_cases,
    inputs,
    joint_attention_cases,
)
from memattn.benchmarks.shapes import JOINT_SHAPES, SHAPES, STABLE_DIFFUSION

BY_NAME = {shape.name: shape for shape in (*SHAPES, *JOINT_SHAPES)}


def test_bytes_and_flops_of_the_largest_layer_of_stable_diffusion_14():
    shape = BY_NAME["sd14_64x64"]
    # 16 heads of both halves; 4096 queries and outputs, 77 keys and values of 40 numbers
    assert shape.bytes(torch.float16) == 16 * (2 * 4096 + 2 * 77) * 40 * 2 == 10_682_880
    assert shape.bytes(torch.float32) == 2 * shape.bytes(torch.float16)
    assert shape.flops == 2 * (2 * 16 * 4096 * 77 * 40) == 807_403_520


def test_no_two_shapes_share_a_name():
    assert len(BY_NAME) == len(SHAPES) + len(JOINT_SHAPES)


# What the checkpoints' unet/config.json say, at one pixel's width instead of 320.
CONFIGURATIONS = {
    "sd14": (64, {"attention_head_dim": 8}),
    "sd21": (96, {"attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}),
    "sdxl": (
        128,
        {
            "attention_head_dim": (5, 10, 20),
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
            "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
        },
    ),
}


@pytest.mark.parametrize("model", CONFIGURATIONS)
def test_layers_are_those_of_the_model(model):
    side, configuration = CONFIGURATIONS[model]
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=side, cross_attention_dim=8, **configuration)
        found = {}

        def note(layer, arguments, keywords):
            queries = arguments[0].shape[1]
            key = (queries, layer.heads, layer.inner_dim // layer.heads)
            found[key] = found.get(key, 0) + 1

        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                module.register_forward_pre_hook(note, with_kwargs=True)
        unet(torch.empty(2, 4, side, side), 1, torch.empty(2, 77, 8))
    listed = [shape for shape in STABLE_DIFFUSION if shape.name.startswith(model)]
    assert found == {(s.queries, s.heads, s.dim): s.layers for s in listed}
    assert {(s.batch, s.keys) for s in listed} == {(2, 77)}


def test_joint_layers_are_those_of_the_models():
    # image tokens by way of the autoencoder's 1/8 and patches of 2 x 2, and the models' text
    facts = {
        shape.name: (shape.queries, shape.keys, shape.text, shape.heads, shape.dim)
        for shape in JOINT_SHAPES
    }
    clip, t5 = 77, 256
    assert facts == {
        "sd3_medium": (64 * 64 + clip + t5,) * 2 + (clip + t5, 24, 64),
        "sd35_large": (64 * 64 + clip + t5,) * 2 + (clip + t5, 38, 64),
        "flux_dev": (64 * 64 + 512,) * 2 + (512, 24, 128),
        "flux_schnell": (64 * 64 + 256,) * 2 + (256, 24, 128),
        "qwen_image": (83 * 83 + 512,) * 2 + (512, 24, 128),
    }
    assert {shape.text for shape in SHAPES} == {0}


@pytest.mark.parametrize(
    ("device", "shapes", "dtypes"),
    [("cpu", STABLE_DIFFUSION, ("fp32", "bf16")), ("cuda", SHAPES, ("bf16",))],
)
def test_a_usual_run_is_what_pipelines_use_there(device, shapes, dtypes):
    usual = cross_attention_cases(device, every=False, only="")
    expected = [f"{shape.name}-{dtype}" for shape in shapes for dtype in dtypes]
    assert [case.name for case in usual] == expected


def test_every_case_can_be_asked_for_and_chosen_by_name():
    assert len(cross_attention_cases("cpu", every=True, only="")) == 3 * len(SHAPES)
    assert [case.name for case in cross_attention_cases("cpu", every=True, only="sigma")] == [
        f"pixart_sigma-{dtype}" for dtype in ("fp32", "bf16", "fp16")
    ]
    assert [case.name for case in joint_attention_cases("cuda", every=False, only="flux")] == [
        "flux_dev-bf16",
        "flux_schnell-bf16",
    ]


def test_inputs_are_what_a_processor_passes_and_the_same_in_every_run():
    case = Case(BY_NAME["sd14_8x8"], "bf16", "cpu")
    query, key, value = inputs(case)
    assert query.shape == (2, 8, 64, 160)
    assert key.shape == value.shape == (2, 8, 77, 160)
    assert query.dtype == torch.bfloat16
    assert query.transpose(1, 2).is_contiguous()
    assert all(map(torch.equal, inputs(case), (query, key, value)))
    assert not torch.equal(key, value)
