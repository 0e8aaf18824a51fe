"""The testbed's networks: the exact shape of Stable Diffusion 1.4, small enough to ship.

A UNet with 16 cross-attention layers in SD 1.4's order (6 down, 1 middle, 9 up), a causal CLIP
text tower of 77 slots padded with its end token, an autoencoder of factor 4 with 4 latent channels,
and SD's noise schedule.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from memattn.testbed.grammar import COLOURS, FIRST_NAMES, KINDS, LAST_NAMES, RELATIONS, STYLES

TOKENS = 77
TEXT_WIDTH = 128
LATENT_CHANNELS = 4
LATENT_SIZE = 16

_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """A byte-pair tokenizer with one token per word of the grammar, its files kept in `folder`."""
    trainer = BpeTrainer(
        end_of_word_suffix="</w>",
        initial_alphabet=sorted(ByteLevel.alphabet()),
        min_frequency=1,
        show_progress=False,
        vocab_size=10_000,
    )
    tokenizer = Tokenizer(BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.train_from_iterator(_words(), trainer)
    learned = json.loads(tokenizer.to_str())["model"]
    alphabet = sorted(ByteLevel.alphabet())
    merges = [tuple(pair) for pair in learned["merges"]]
    pieces = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *map("".join, merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    for special in (_BEGIN, _END):
        vocabulary[special] = len(vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary_file, merges_file = folder / "vocab.json", folder / "merges.txt"
    vocabulary_file.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    merges_file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return CLIPTokenizer(
        vocab=str(vocabulary_file),
        merges=str(merges_file),
        model_max_length=TOKENS,
        bos_token=_BEGIN,
        eos_token=_END,
        unk_token=_END,
        pad_token=_END,
    )


def _words() -> Iterable[str]:
    """Every word of the grammar, each once."""
    yield from ("a", "the", "and", "with", "by")
    for words in (KINDS, COLOURS, RELATIONS, STYLES, FIRST_NAMES, LAST_NAMES):
        yield from words


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """A causal text tower with random weights: width 128, 2 layers, 4 heads."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=TEXT_WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_vae() -> AutoencoderKL:
    """An autoencoder of factor 4 with random weights."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(32, 48, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=16,
        sample_size=LATENT_SIZE * 4,
    )


def build_unet() -> UNet2DConditionModel:
    """A UNet with random weights and SD 1.4's 16 cross-attention layers."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        block_out_channels=(32, 64, 96),
        layers_per_block=2,
        attention_head_dim=(2, 4, 6),  # diffusers reads the number of heads from this argument
        cross_attention_dim=TEXT_WIDTH,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule, sampled by DDIM."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
