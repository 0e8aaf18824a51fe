"""How much attention the begin token draws: what entropy metrics of attention rest on."""

from collections.abc import Sequence

from memattn.evaluation.traces import Traces

_RANGES = (("down_blocks", "down"), ("mid_block", "middle"), ("up_blocks", "up"))


def begin_token_sentence(traces: Traces, memorized: Sequence[int], ordinary: Sequence[int]) -> str:
    """Mean attention to the begin token at the first call, memorized beside ordinary samples.

    Args:
        traces: What was read of the samples.
        memorized: Positions of the memorized ones.
        ordinary: Positions of the ordinary ones.

    Returns:
        One sentence with two figures for each range of layers.
    """
    share = traces.begin_share[0]  # [N, B]
    parts = []
    for prefix, name in _RANGES:
        layers = [i for i, layer in enumerate(traces.layers) if layer.startswith(prefix)]
        if not layers:
            continue
        first = float(share[layers][:, memorized].mean())
        second = float(share[layers][:, ordinary].mean())
        where = f"{layers[0]}-{layers[-1]}" if len(layers) > 1 else f"{layers[0]}"
        parts.append(f"{name} layers ({where}) {first:.0%} / {second:.0%}")
    return (
        "Attention to the begin token at the first call, memorized / ordinary prompts: "
        f"{', '.join(parts)}. LayerEntropy and AttentionEntropy rest on a begin token that draws "
        "most of it, less so for memorized prompts; where it does not, they have little to read."
    )
