"""Tiny pipelines of the real diffusers classes, built in code: nothing is downloaded."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
)

WORDS = ("a", "red", "fox", "over", "the", "lazy", "dog", "blue", "house", "by", "sea")
BEGIN, END = "<|startoftext|>", "<|endoftext|>"
TEXT_TOKENS = 16
LATENT = 8


def tiny_tokenizer(folder: Path, *, pad: str = END) -> CLIPTokenizer:
    """A CLIP tokenizer that knows the letters and `WORDS`."""
    letters = "abcdefghijklmnopqrstuvwxyz!,."
    vocabulary = [*letters, *(f"{letter}</w>" for letter in letters)]
    merges = ["#version: 0.2"]
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        while len(pieces) > 1:
            merge, joined = f"{pieces[0]} {pieces[1]}", pieces[0] + pieces[1]
            if merge not in merges:
                merges.append(merge)
                vocabulary.append(joined)
            pieces = [joined, *pieces[2:]]
    vocabulary = list(dict.fromkeys([*vocabulary, BEGIN, END]))
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocabulary_file.write_text(json.dumps({token: i for i, token in enumerate(vocabulary)}))
    merges_file.write_text("\n".join(merges) + "\n")
    return CLIPTokenizer(
        str(vocabulary_file),
        str(merges_file),
        unk_token=END,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=pad,
        model_max_length=TEXT_TOKENS,
    )


def _text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def tiny_vae() -> AutoencoderKL:
    """An autoencoder that halves the image once."""
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=2 * LATENT,
    )


def tiny_unet(**changes: Any) -> UNet2DConditionModel:
    """SD 1.x structure: as many heads at every level."""
    config: dict[str, Any] = {
        "sample_size": LATENT,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return UNet2DConditionModel(**{**config, **changes}).eval()


def stable_diffusion(folder: Path, **unet: Any) -> StableDiffusionPipeline:
    """A tiny Stable Diffusion 1.x; the same weights every time."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer(folder)
    pipe = StableDiffusionPipeline(
        vae=tiny_vae().eval(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, 16)).eval(),
        tokenizer=tokenizer,
        unet=tiny_unet(**unet),
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def stable_diffusion_2(folder: Path) -> StableDiffusionPipeline:
    """SD 2.x structure: heads grow with the level, linear projections, v-prediction."""
    pipe = stable_diffusion(
        folder,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
    )
    pipe.scheduler = DDIMScheduler.from_config(
        pipe.scheduler.config, prediction_type="v_prediction"
    )
    return pipe


def stable_diffusion_xl(folder: Path) -> StableDiffusionXLPipeline:
    """SDXL structure: two text towers, no attention at the first level, two blocks per layer."""
    torch.manual_seed(0)
    tokenizer, tokenizer_2 = tiny_tokenizer(folder / "1"), tiny_tokenizer(folder / "2", pad="!")
    unet = tiny_unet(
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    pipe = StableDiffusionXLPipeline(
        vae=tiny_vae().eval(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, 16)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer_2, 16)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer_2,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
        ),
        add_watermarker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def generators(count: int) -> list[torch.Generator]:
    """One generator per image."""
    return [torch.Generator().manual_seed(seed) for seed in range(count)]
