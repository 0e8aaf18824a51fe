"""Records built by hand, with a known order of how memorized each sample looks."""

import torch

from memattn.records import Record

LAYERS = (
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2",
    "down_blocks.0.attentions.1.transformer_blocks.0.attn2",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn2",
    "down_blocks.1.attentions.1.transformer_blocks.0.attn2",
    "mid_block.attentions.0.transformer_blocks.0.attn2",
    "up_blocks.1.attentions.0.transformer_blocks.0.attn2",
)
QUERIES = (64, 64, 16, 16, 4, 16)


def build_record(
    strengths=(0.0, 0.4, 0.8),
    *,
    calls=5,
    heads=(2, 2, 2, 2, 2, 2),
    tokens=9,
    latent=8,
    prediction_type="epsilon",
    prompt_lengths=None,
    map_size=8,
    seed=0,
):
    """A record whose samples look the more memorized the larger their strength in [0, 1).

    Strength spreads the attention from one token towards all and lengthens the guidance gap.
    """
    generator = torch.Generator().manual_seed(seed)
    strength = torch.tensor(strengths, dtype=torch.float64)
    samples = strength.numel()

    peak = torch.zeros(tokens, dtype=torch.float64)
    peak[0] = 1
    jitter = torch.rand(calls, len(LAYERS), 1, tokens, generator=generator, dtype=torch.float64)
    spread = (1 + 0.2 * jitter) / (1 + 0.2 * jitter).sum(-1, keepdim=True)
    s = strength[:, None]
    attention = (1 - s) * peak + s * spread  # [S, N, B, Lk]
    token_mass = attention * torch.tensor(QUERIES, dtype=torch.float64)[:, None, None]

    pixels = torch.rand(calls, 1, latent, latent, generator=generator, dtype=torch.float64)
    gap_squared = (0.5 + pixels) * (1 + strength)[:, None, None] ** 2
    maps = {
        layer: 0.1 + 0.5 * torch.rand(1, map_size, map_size, generator=generator)
        for layer in LAYERS[:2]
    }
    lengths = torch.tensor(prompt_lengths or [4] * samples)
    return Record(
        layers=LAYERS,
        layer_heads=heads,
        layer_queries=QUERIES,
        timesteps=torch.linspace(981, 1, calls),
        sigmas=torch.linspace(14, 0.1, calls),
        prediction_type=prediction_type,
        scheduled_calls=calls,
        prompt_lengths=lengths,
        token_mass=token_mass.float(),
        gap_squared=gap_squared.float(),
        token_maps={layer: m.repeat(samples, 1, 1) for layer, m in maps.items()},
        map_tokens=lengths - 1,
    )


# What a detector may meet; each is handed `strengths`.
RECORDS = {
    "sd1": {},
    "sd2_v_prediction": {"prediction_type": "v_prediction", "heads": (1, 1, 2, 2, 4, 2)},
    "sample_prediction": {"prediction_type": "sample"},
    "one_call": {"calls": 1},
    "two_calls": {"calls": 2},
    "maps_smaller_than_latent": {"map_size": 4},
    "long_prompts": {"tokens": 12, "prompt_lengths_of": 12},
}


def build_named(name, strengths):
    options = dict(RECORDS[name])
    length = options.pop("prompt_lengths_of", 4)
    return build_record(strengths, prompt_lengths=[length] * len(strengths), **options)
