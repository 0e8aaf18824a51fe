import pytest
import torch

from memattn.errors import RecordingError
from memattn.recording import record
from memattn.recording.prompts import PromptListener
from tests import pipelines


def encoded(pipe, *args, **kwargs):
    """What a listener learns from one call of encode_prompt."""
    listener = PromptListener(pipe)
    listener.attach()
    try:
        with torch.no_grad():
            pipe.encode_prompt(*args, **kwargs)
    finally:
        listener.detach()
    assert "encode_prompt" not in pipe.__dict__
    return listener.encoded


def test_lengths_count_begin_prompt_and_end(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    found = encoded(pipe, ["a red fox", ""], "cpu", 3, True)
    assert found.lengths == (5, 2)
    assert (found.prompts, found.images_per_prompt, found.samples) == (2, 3, 6)
    assert encoded(pipe, "a fox", device="cpu", num_images_per_prompt=1,
                   do_classifier_free_guidance=False).lengths == (4,)  # fmt: skip


def test_long_prompt_counts_what_is_left_after_truncation(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    found = encoded(pipe, "fox " * 40, "cpu", 1, True)
    assert found.lengths == (pipelines.TEXT_TOKENS,)


def test_textual_inversion_counts_every_vector(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    vectors = {"<thing>": torch.randn(3, 16)}
    pipe.load_textual_inversion(vectors, token="<thing>")
    assert encoded(pipe, "a <thing>", "cpu", 1, False).lengths == (2 + 1 + 3,)


def test_longer_of_two_prompts_counts(tmp_path):
    pipe = pipelines.stable_diffusion_xl(tmp_path)
    assert encoded(pipe, ["a red fox"], ["the lazy dog by the sea"]).lengths == (8,)
    assert encoded(pipe, ["a red fox"]).lengths == (5,)


def test_embeddings_leave_lengths_unknown(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    found = encoded(pipe, None, "cpu", 2, False, prompt_embeds=torch.zeros(3, 16, 16))
    assert found.lengths is None
    assert found.samples == 6


def test_denoiser_that_another_caller_runs_is_not_recorded_as_the_pipelines(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    pipe("a fox", num_inference_steps=1, output_type="latent")
    inputs = torch.zeros(2, 4, 8, 8), 1, torch.zeros(2, 16, 16)
    with (
        torch.no_grad(),
        pytest.raises(RecordingError, match="not by the pipeline being"),
        record(pipe),
    ):
        pipe.unet(*inputs)


def test_wrapper_that_somebody_put_there_meanwhile_stays(tmp_path):
    pipe = pipelines.stable_diffusion(tmp_path)
    listener = PromptListener(pipe)
    listener.attach()
    pipe.encode_prompt = theirs = lambda *args, **kwargs: None
    listener.detach()
    assert pipe.encode_prompt is theirs
    del pipe.encode_prompt
    listener.attach()
    del pipe.encode_prompt
    listener.detach()
    assert "encode_prompt" not in pipe.__dict__
