"""How much attention the begin token draws: what entropy metrics of attention rest on."""

import torch

from memattn.records import Record

_RANGES = (("down_blocks", "down"), ("mid_block", "middle"), ("up_blocks", "up"))


def begin_token_sentence(record: Record, memorized: int, ordinary: int) -> str:
    """Mean attention to the begin token at the first call, memorized beside ordinary samples.

    Args:
        record: A record with `token_mass`, whose first samples are the memorized ones and the next
            the ordinary ones.
        memorized: Number of memorized samples.
        ordinary: Number of ordinary samples.

    Returns:
        One sentence with two figures for each range of layers.
    """
    attention = record.attention()[0, :, :, 0]  # [N, B]
    parts = []
    for prefix, name in _RANGES:
        layers = [i for i, layer in enumerate(record.layers) if layer.startswith(prefix)]
        if not layers:
            continue
        chosen = attention[torch.tensor(layers, device=attention.device)]
        first = float(chosen[:, :memorized].mean())
        second = float(chosen[:, memorized : memorized + ordinary].mean())
        where = f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else f"{layers[0]}"
        parts.append(f"{name} layers ({where}) {first:.0%} / {second:.0%}")
    return (
        "Attention to the begin token at the first call, memorized / ordinary prompts: "
        f"{', '.join(parts)}. LayerEntropy and AttentionEntropy rest on a begin token that draws "
        "most of it, less so for memorized prompts; where it does not, they have little to read."
    )
