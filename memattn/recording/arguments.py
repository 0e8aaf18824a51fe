"""The arguments of `record`, checked once and made a plan."""

from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from memattn.errors import RecordingError
from memattn.recording.locate import Layer, first_level
from memattn.recording.run import Plan
from memattn.records import FIELDS


def plan_of(
    layers: Sequence[Layer],
    *,
    fields: Collection[str],
    map_layers: Sequence[int | str] | None,
    token: int | Sequence[int] | Tensor | None,
    heads: bool,
    entropy_per_token: bool,
    prompt_lengths: Sequence[int] | Tensor | None,
) -> Plan:
    """The plan that the arguments of `record` describe, for a denoiser with these layers."""
    if isinstance(fields, str):
        raise ValueError(
            f"got fields={fields!r}, a string, expected a collection such as ({FIELDS[0]!r},)."
        )
    unknown = sorted(set(fields) - set(FIELDS))
    if unknown:
        raise ValueError(f"got fields {unknown}, expected some of {list(FIELDS)}.")
    wanted = set(fields)
    wanted |= {"head_token_mass", "head_entropy"} if heads else set()
    wanted |= {"token_entropy"} if entropy_per_token else set()
    if not wanted:
        raise ValueError(f"got no fields to record, expected some of {list(FIELDS)}.")
    with_maps = "token_maps" in wanted
    for name, value in (("map_layers", map_layers), ("token", token)):
        if value is not None and not with_maps:
            raise ValueError(f"got {name}= and fields without token_maps, expected token_maps too.")
    return Plan(
        fields=frozenset(wanted),
        map_layers=_map_layers(layers, map_layers) if with_maps else (),
        token=_integers("token", token),
        prompt_lengths=_integers("prompt_lengths", prompt_lengths),
    )


def _map_layers(layers: Sequence[Layer], wanted: Sequence[int | str] | None) -> tuple[str, ...]:
    """Names of the layers whose maps to keep."""
    names = [layer.name for layer in layers]
    if wanted is None:
        return first_level(tuple(layers))
    if not len(wanted):
        raise ValueError("got map_layers=[], expected layers, or fields without token_maps.")
    chosen = []
    for layer in wanted:
        if isinstance(layer, int) and -len(names) <= layer < len(names):
            chosen.append(names[layer])
        elif layer in names:
            chosen.append(str(layer))
        else:
            raise RecordingError(
                f"got map layer {layer!r}, expected an index below {len(names)} or one of "
                f"{', '.join(names)}."
            )
    return tuple(chosen)


def _integers(name: str, values: int | Sequence[int] | Tensor | None) -> tuple[int, ...] | None:
    """Token positions or counts as integers."""
    if values is None:
        return None
    tensor = torch.as_tensor(values)
    if tensor.is_floating_point() or tensor.dtype == torch.bool or tensor.ndim > 1:
        raise ValueError(f"got {name}={values!r}, expected one integer per sample.")
    return tuple(int(value) for value in tensor.flatten().tolist())
