"""Tiny checkpoints on disk, shared by the tests of all commands."""

import pytest

from tests.pipelines import stable_diffusion


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    stable_diffusion(folder / "tokenizer").save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def shallow_checkpoint(tmp_path_factory):
    """A checkpoint with three cross-attention layers, too few for the paper's layer 3."""
    folder = tmp_path_factory.mktemp("shallow")
    pipe = stable_diffusion(
        folder / "tokenizer",
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
    )
    pipe.save_pretrained(folder / "model")
    return folder / "model"
