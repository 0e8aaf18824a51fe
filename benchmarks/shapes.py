"""Attention shapes of real text-to-image models, by name.

A shape is one layer of one model at its own resolution. Batch 2 is one image with classifier-free
guidance: the unconditional and the conditional half. Stable Diffusion has its levels at 1/8 to
1/64 of the image's side, with 16, 9 and 5 + 1 cross-attentions as its UNet configurations say
(`attention_head_dim`, `cross_attention_dim`, `transformer_layers_per_block`, `layers_per_block`):

- Stable Diffusion 1.4, 512 px: 8 heads at every level, CLIP's 77 tokens.
- Stable Diffusion 2.1, 768 px: 5, 10, 20, 20 heads of 64.
- Stable Diffusion XL, 1024 px: 10 and 20 heads of 64, no attention at the first level.
- PixArt-alpha and PixArt-Sigma, 1024 px: 28 blocks of 16 heads of 72; 120 and 300 T5 tokens.
- Sana 1.6B, 1024 px: 20 blocks, 20 heads of 112, 300 Gemma tokens; its autoencoder reduces 32-fold.

In joint attention image and text are one sequence, of queries and of keys:

- Stable Diffusion 3 medium and 3.5 large, 1024 px: 4096 image tokens and 333 of text, 77 of CLIP's
  and 256 of T5's; 24 and 38 blocks of as many heads of 64.
- FLUX.1 dev and schnell, 1024 px: 512 and 256 T5 tokens, 57 blocks of 24 heads of 128; one image is
  batch 1, because guidance is distilled.
- Qwen-Image, 1328 px: 83 x 83 image tokens, 512 of text at most, 60 blocks of 24 heads of 128; the
  two halves of its guidance are calls of their own.

Source:
    The configurations that the models' diffusers checkpoints carry (unet/config.json,
    transformer/config.json) and the pipelines' default `max_sequence_length`.
"""

from typing import NamedTuple

import torch


class Shape(NamedTuple):
    """One attention layer.

    Attributes:
        name: Model and level, as it stands in tables.
        model: The model's name and resolution.
        batch: B.
        heads: H.
        queries: Lq.
        keys: Lk.
        dim: D.
        layers: How many such layers one denoiser call runs.
        text: How many of the queries and keys are text, which stands first; 0 in cross-attention,
            where no query is and all keys are.
    """

    name: str
    model: str
    batch: int
    heads: int
    queries: int
    keys: int
    dim: int
    layers: int
    text: int = 0

    def bytes(self, dtype: torch.dtype) -> int:
        """Memory that has to move: query, key, value and output, each once."""
        rows = 2 * (self.queries + self.keys)
        return self.batch * self.heads * rows * self.dim * dtype.itemsize

    @property
    def flops(self) -> int:
        """Operations of the two matrix products, a multiplication and an addition each counted."""
        return 4 * self.batch * self.heads * self.queries * self.keys * self.dim


def _joint(
    name: str, model: str, batch: int, heads: int, image: int, text: int, dim: int, layers: int
) -> Shape:
    tokens = text + image
    return Shape(name, model, batch, heads, tokens, tokens, dim, layers, text)


_SD14 = "Stable Diffusion 1.4, 512 px"
_SD21 = "Stable Diffusion 2.1, 768 px"
_SDXL = "Stable Diffusion XL, 1024 px"

STABLE_DIFFUSION = (
    Shape("sd14_64x64", _SD14, batch=2, heads=8, queries=4096, keys=77, dim=40, layers=5),
    Shape("sd14_32x32", _SD14, batch=2, heads=8, queries=1024, keys=77, dim=80, layers=5),
    Shape("sd14_16x16", _SD14, batch=2, heads=8, queries=256, keys=77, dim=160, layers=5),
    Shape("sd14_8x8", _SD14, batch=2, heads=8, queries=64, keys=77, dim=160, layers=1),
    Shape("sd21_96x96", _SD21, batch=2, heads=5, queries=9216, keys=77, dim=64, layers=5),
    Shape("sd21_48x48", _SD21, batch=2, heads=10, queries=2304, keys=77, dim=64, layers=5),
    Shape("sd21_24x24", _SD21, batch=2, heads=20, queries=576, keys=77, dim=64, layers=5),
    Shape("sd21_12x12", _SD21, batch=2, heads=20, queries=144, keys=77, dim=64, layers=1),
    Shape("sdxl_64x64", _SDXL, batch=2, heads=10, queries=4096, keys=77, dim=64, layers=10),
    Shape("sdxl_32x32", _SDXL, batch=2, heads=20, queries=1024, keys=77, dim=64, layers=60),
)
TRANSFORMERS = (
    Shape(
        "pixart_alpha", "PixArt-alpha, 1024 px", 2, 16, queries=4096, keys=120, dim=72, layers=28
    ),
    Shape(
        "pixart_sigma", "PixArt-Sigma, 1024 px", 2, 16, queries=4096, keys=300, dim=72, layers=28
    ),
    Shape("sana", "Sana 1.6B, 1024 px", 2, 20, queries=1024, keys=300, dim=112, layers=20),
)
SHAPES = STABLE_DIFFUSION + TRANSFORMERS
JOINT_SHAPES = (
    _joint("sd3_medium", "Stable Diffusion 3 medium, 1024 px", 2, 24, 4096, 333, dim=64, layers=24),
    _joint(
        "sd35_large", "Stable Diffusion 3.5 large, 1024 px", 2, 38, 4096, 333, dim=64, layers=38
    ),
    _joint("flux_dev", "FLUX.1 dev, 1024 px", 1, 24, 4096, 512, dim=128, layers=57),
    _joint("flux_schnell", "FLUX.1 schnell, 1024 px", 1, 24, 4096, 256, dim=128, layers=57),
    _joint("qwen_image", "Qwen-Image, 1328 px", 1, 24, 6889, 512, dim=128, layers=60),
)
