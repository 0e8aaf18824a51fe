import shutil

import pytest
import torch
from diffusers import StableDiffusionPipeline

from memattn.errors import TestbedError
from memattn.testbed import load_control, load_pipeline
from memattn.testbed.manifest import DATA, MODEL


def test_packaged_pipeline_is_a_stable_diffusion_checkpoint():
    """The folder loads with diffusers' own loader, to the same weights."""
    ours = load_pipeline()
    theirs = StableDiffusionPipeline.from_pretrained(
        DATA / MODEL, local_files_only=True, low_cpu_mem_usage=False, dtype=torch.float32
    )
    for name in ("vae", "text_encoder", "unet"):
        first, second = getattr(ours, name).state_dict(), getattr(theirs, name).state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert ours.scheduler.config == theirs.scheduler.config
    assert ours.tokenizer("red disc").input_ids == theirs.tokenizer("red disc").input_ids


def test_packaged_weights_are_small_enough_to_ship():
    sizes = [file.stat().st_size for file in (DATA / MODEL).rglob("*.safetensors")]
    assert sum(sizes) <= 12e6


def test_control_differs_in_the_denoiser_alone():
    pipeline, control, again = load_pipeline(), load_control(), load_control()
    weight = "conv_in.weight"
    assert not torch.equal(pipeline.unet.state_dict()[weight], control.unet.state_dict()[weight])
    assert torch.equal(control.unet.state_dict()[weight], again.unet.state_dict()[weight])
    assert control.unet.config.keys() == pipeline.unet.config.keys()
    for name, value in pipeline.text_encoder.state_dict().items():
        assert torch.equal(value, control.text_encoder.state_dict()[name])


def test_control_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load_pipeline()
    load_control()
    assert torch.equal(torch.rand(1), expected)


def test_damaged_or_missing_weights_are_refused_by_name(tmp_path):
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    file = next((data / MODEL / "unet").glob("*.safetensors"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(TestbedError, match=f"{file} does not have the manifest's SHA-256"):
        load_pipeline(data)
    file.unlink()
    with pytest.raises(TestbedError, match=f"{file} is missing"):
        load_pipeline(data)


def test_missing_configuration_is_one_sentence(tmp_path):
    data = tmp_path / "data"
    shutil.copytree(DATA, data)
    (data / MODEL / "unet" / "config.json").unlink()
    with pytest.raises(TestbedError, match="holds a damaged testbed"):
        load_pipeline(data)
