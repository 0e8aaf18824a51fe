"""A tiny checkpoint on disk, shared by the tests of all commands."""

import pytest

from tests.pipelines import stable_diffusion


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    stable_diffusion(folder / "tokenizer").save_pretrained(folder / "model")
    return folder / "model"
