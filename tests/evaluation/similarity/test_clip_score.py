import json
import shutil

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import logging

from memattn.errors import InputError
from memattn.evaluation.similarity import ClipScore, clip_score
from memattn.testbed.networks import build_tokenizer

SIZE, SLOTS = 32, 16


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A tiny CLIP as transformers saves one: its folder, the model and its tokenizer."""
    folder = tmp_path_factory.mktemp("clip")
    tokenizer = build_tokenizer(folder)
    tokenizer.model_max_length = 1000  # some published tokenizers do not know their model's slots
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=SLOTS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=SIZE,
        patch_size=8,
    )
    torch.manual_seed(0)
    model = CLIPModel(
        CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=12)
    ).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)  # the default start gives all pictures one score
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": SIZE}, crop_size={"height": SIZE, "width": SIZE}
    )
    for part in (model, tokenizer, processor):
        part.save_pretrained(folder)
    return folder, model, tokenizer


def pictures(count, size=SIZE):
    return list(default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))


PROMPTS = ["red disc", "a blue moon beside a star", "green leaf"]


def test_score_is_the_plain_cosine(clip):
    """Computed from the towers one by one; signs and sizes as they come, nothing cut or scaled."""
    folder, model, tokenizer = clip
    images = pictures(3)
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])
    deviation = torch.tensor([0.26862954, 0.26130258, 0.27577711])
    wanted = []
    with torch.no_grad():
        for image, prompt in zip(images, PROMPTS, strict=True):
            pixels = (torch.from_numpy(image) / 255 - mean) / deviation
            seen = model.visual_projection(
                model.vision_model(pixels.permute(2, 0, 1)[None]).pooler_output
            )
            ids = torch.tensor([tokenizer(prompt).input_ids])
            read = model.text_projection(model.text_model(ids).pooler_output)
            wanted.append(torch.cosine_similarity(seen, read).item())
    found = ClipScore(folder).scores(images, PROMPTS)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert found.dtype == np.float64
    assert min(wanted) < 0 < max(wanted)
    assert np.ptp(wanted) > 0.1


def test_scores_do_not_depend_on_the_batch(clip, monkeypatch):
    measure = ClipScore(clip[0])
    images = pictures(3, size=50)
    whole = measure.scores(images, PROMPTS)
    monkeypatch.setattr(clip_score, "_BATCH", 2)
    np.testing.assert_allclose(measure.scores(images, PROMPTS), whole, atol=1e-6)


def test_pictures_of_different_sizes_are_scored_together(clip):
    images = [*pictures(1, size=50), *pictures(1, size=SIZE)]
    assert ClipScore(clip[0]).scores(images, PROMPTS[:2]).shape == (2,)


def test_a_prompt_that_is_too_long_is_cut(clip):
    measure = ClipScore(clip[0])
    kept = " ".join(["red"] * (SLOTS - 2))
    scores = measure.scores(pictures(1) * 2, [kept, f"{kept} moon"])
    assert scores[0] == pytest.approx(scores[1], abs=1e-6)


@pytest.mark.parametrize(("images", "prompts"), [(2, 1), (1, 2), (0, 0)])
def test_other_numbers_of_images_and_prompts_are_refused(clip, images, prompts):
    with pytest.raises(
        ValueError, match=f"got {images} images and {prompts} prompts, expected one"
    ):
        ClipScore(clip[0]).scores(pictures(images), PROMPTS[:prompts])


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"got .*none, expected a folder with a CLIP model"):
        ClipScore(tmp_path / "none")


def with_weights(clip, folder, change):
    """A copy of the CLIP's folder whose weights were changed."""
    shutil.copytree(clip[0], folder, dirs_exist_ok=True)
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_missing_weights_are_refused_and_not_drawn_at_random(clip, tmp_path):
    folder = with_weights(clip, tmp_path, lambda weights: weights.pop("visual_projection.weight"))
    with pytest.raises(InputError, match=r"lacks 1 of CLIP's weights, visual_projection\.weight"):
        ClipScore(folder)


def test_weights_of_other_sizes_are_refused(clip, tmp_path):
    def widen(weights):
        weights["visual_projection.weight"] = torch.zeros(13, 16)

    with pytest.raises(InputError, match="holds no CLIP that can be loaded"):
        ClipScore(with_weights(clip, tmp_path, widen))


def test_damaged_weights_are_refused(clip, tmp_path):
    shutil.copytree(clip[0], tmp_path, dirs_exist_ok=True)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"holds no CLIP that can be loaded: .+"):
        ClipScore(tmp_path)


def test_an_error_without_a_message_is_named(clip, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError

    monkeypatch.setattr(CLIPModel, "from_pretrained", fail)
    with pytest.raises(InputError, match=r"can be loaded: OSError$"):
        ClipScore(clip[0])


def test_another_model_is_refused(clip, tmp_path):
    CLIPTextModel(clip[1].config.text_config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds a model of type clip_text_model, expected clip"):
        ClipScore(tmp_path)


def test_a_folder_without_weights_is_refused(clip, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(clip[1].config.to_dict()), encoding="utf-8")
    with pytest.raises(InputError, match="holds no CLIP that can be loaded"):
        ClipScore(tmp_path)


def test_loading_shows_no_progress_bar_and_leaves_the_setting(clip, capfd):
    for shown in (True, False):
        (logging.enable_progress_bar if shown else logging.disable_progress_bar)()
        try:
            ClipScore(clip[0])
            assert logging.is_progress_bar_enabled() is shown
        finally:
            logging.enable_progress_bar()
    assert "Loading" not in capfd.readouterr().err


def test_the_processor_is_pillows(clip):
    """Whether torchvision is there must not change a score."""
    assert isinstance(ClipScore(clip[0])._processor, CLIPImageProcessorPil)
