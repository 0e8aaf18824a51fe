"""How large a default record is, at the shapes of the real models."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from memattn.processors.recording import LayerRecording, Statistics
from memattn.recording.arguments import plan_of
from memattn.recording.locate import cross_attention_layers
from memattn.recording.run import Run
from memattn.records import FIELDS

SD_1_4 = {
    "sample_size": 64,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
SDXL = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
}


@pytest.mark.parametrize(
    ("config", "layers", "megabytes"), [(SD_1_4, 16, 2), (SDXL, 70, 6)], ids=["sd_1_4", "sdxl"]
)
def test_default_record_of_fifty_calls_fits_its_budget(config, layers, megabytes):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    found = cross_attention_layers(unet)
    assert len(found) == layers
    plan = plan_of(
        found,
        fields=FIELDS,
        map_layers=None,
        token=None,
        heads=False,
        entropy_per_token=False,
        prompt_lengths=None,
    )
    side = config["sample_size"]
    left = {}
    for layer in found:
        level = 1 + (layer.name in plan.map_layers and layers == 70)
        token_map = torch.zeros(2, layer.heads, (side // level) ** 2)
        with_map = layer.name in plan.map_layers
        mass = torch.ones(2, layer.heads, 77)
        left[layer.name] = Statistics(mass, mass, token_map if with_map else None, None)
    recordings = {name: LayerRecording(layer=name) for name in left}
    heads = [layer.heads for layer in found]
    run = Run(plan, recordings, heads, "unconditional+conditional", 2, 50)
    for call in range(50):
        for name, recording in recordings.items():
            recording.statistics, recording.queries = left[name], side**2
        run.collect(torch.tensor(call), torch.zeros(2, 4, side, side))
    fields = run.finished()
    tensors = [value for value in fields.values() if isinstance(value, torch.Tensor)]
    tensors += fields["token_maps"].values()
    assert sum(tensor.nbytes for tensor in tensors) < megabytes * 1e6
