"""One run of a denoiser: what its calls left behind, and the `Record` made of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from memattn.errors import RecordingError
from memattn.processors.recording import LayerRecording, Statistics
from memattn.recording.guidance import gap_squared, raw_output
from memattn.recording.layout import Layout, conditional_rows
from memattn.recording.slabs import Slab

_MASS = frozenset({"token_mass", "head_token_mass"})
_ENTROPY = frozenset({"entropy", "token_entropy", "head_entropy"})


@dataclass(frozen=True)
class Plan:
    """What to record.

    Attributes:
        fields: Names of the tensor fields of `Record` to fill.
        map_layers: Layers whose token maps to keep.
        token: Tokens whose maps to keep, one or one per sample; None for each prompt's end token.
        prompt_lengths: Tokens of each prompt, None to learn them from the pipeline.
    """

    fields: frozenset[str]
    map_layers: tuple[str, ...]
    token: tuple[int, ...] | None
    prompt_lengths: tuple[int, ...] | None

    @property
    def statistics(self) -> bool:
        """Whether the attention statistics of every layer are needed."""
        return bool(self.fields & (_MASS | _ENTROPY))


class Run:
    """Collects the calls of one run into slabs on the denoiser's device.

    Args:
        plan: What to record.
        recordings: What records each layer, by name, in forward order.
        heads: Heads of each of these layers.
        layout: Layout of the denoiser's batch.
        batch: Rows of the denoiser's batch.
        capacity: Calls to make room for.
    """

    def __init__(
        self,
        plan: Plan,
        recordings: Mapping[str, LayerRecording],
        heads: Sequence[int],
        layout: Layout,
        batch: int,
        capacity: int,
    ) -> None:
        self.calls = 0
        self._recordings = recordings
        self._heads = tuple(heads)
        self.layout = layout
        self.batch = batch
        self._rows = conditional_rows(layout, batch)
        self._map_layers = plan.map_layers
        names = (
            plan.fields - {"token_maps"} - ({"gap_squared"} if layout == "conditional" else set())
        )
        self._slabs = {name: Slab(name, capacity) for name in sorted(names)}
        self._timesteps = Slab("timesteps", capacity)
        self._maps: dict[str, Tensor] = {}  # [rows, H, Lq]
        self._differing_masks: dict[str, Tensor] = {}
        self._head_index: Tensor | None = None

    @torch.no_grad()
    def collect(self, timestep: Tensor, output: Any) -> None:  # noqa: ANN401 (any model output)
        """Store what one call left behind; no synchronisation with the device."""
        statistics = self._take_statistics()
        self._timesteps.write(self.calls, timestep.reshape(-1)[0])
        prediction = raw_output(output)
        if "gap_squared" in self._slabs:
            self._slabs["gap_squared"].write(self.calls, gap_squared(prediction))
        self._size = prediction.shape[-2:]
        self._write_statistics(list(statistics.values()))
        # Kept as they are: only the last call's are reduced, when the run is finished.
        for layer in self._map_layers:
            token_map = statistics[layer].token_map
            assert token_map is not None
            self._maps[layer] = token_map.detach()
        self.calls += 1

    def _take_statistics(self) -> dict[str, Statistics]:
        """Every layer's statistics of the call that just ended."""
        taken = {}
        for layer, recording in self._recordings.items():
            if recording.statistics is not None:
                taken[layer] = recording.statistics
            recording.statistics = None
        missing = [layer for layer in self._recordings if layer not in taken]
        if missing:
            raise RecordingError(
                f"call {self.calls} left no statistics at {', '.join(missing)}: their processors "
                "were replaced, or the layers were skipped; the run cannot be recorded whole."
            )
        for layer, left in taken.items():
            self._check_rows(layer, left)
            if left.mask_differs is not None:
                before = self._differing_masks.get(layer)
                differs = left.mask_differs
                # cloned: a CUDA graph may overwrite it in the next call
                self._differing_masks[layer] = (
                    differs.clone() if before is None else before | differs
                )
        return taken

    def _check_rows(self, layer: str, left: Statistics) -> None:
        """Refuse a layer whose rows are not the denoiser's samples, such as one over frames."""
        for tensor in (left.token_mass, left.token_map):
            if tensor is not None and tensor.shape[0] != self.batch:
                raise RecordingError(
                    f"got attention over {tensor.shape[0]} rows at {layer}, expected the "
                    f"{self.batch} rows of the denoiser's batch."
                )

    def _write_statistics(self, statistics: Sequence[Statistics]) -> None:
        """Reduce all layers' statistics together: launches do not grow with the layers."""
        per_head = {}
        if self._slabs.keys() & _MASS:
            per_head["token_mass"] = self._every_head([left.token_mass for left in statistics])
        if self._slabs.keys() & _ENTROPY:
            entropy = self._every_head([left.token_entropy for left in statistics])
            per_head["token_entropy"] = entropy
            per_head["entropy"] = entropy.sum(-1) / self._head_queries
        for name, values in per_head.items():
            if name in self._slabs:
                self._slabs[name].write(self.calls, self._head_mean(values))
            if f"head_{name}" in self._slabs:
                self._slabs[f"head_{name}"].write(self.calls, values)

    def _every_head(self, of_layers: Sequence[Tensor | None]) -> Tensor:
        """The conditional rows of all heads of all layers: [sum H, B, Lk]."""
        tensors = [tensor for tensor in of_layers if tensor is not None]
        if self._head_index is None:
            self._prepare_reduction(tensors[0].device)
        return torch.cat(tensors, dim=1)[self._rows].transpose(0, 1)

    def _prepare_reduction(self, device: torch.device) -> None:
        """Which rows of the concatenated heads belong to each layer, padded to the widest layer."""
        widest, start = max(self._heads), 0
        index = torch.zeros(len(self._heads), widest, dtype=torch.int64)
        used = torch.zeros(len(self._heads), widest)
        for layer, heads in enumerate(self._heads):
            index[layer] = start
            index[layer, :heads] = torch.arange(start, start + heads)
            used[layer, :heads] = 1
            start += heads
        queries = [recording.queries for recording in self._recordings.values()]
        per_head = torch.tensor(queries).repeat_interleave(torch.tensor(self._heads))
        self._head_index = index.flatten().to(device)
        self._head_used = used.to(device)  # [N, widest]
        self._head_counts = torch.tensor(self._heads).to(device)  # [N]
        self._head_queries = per_head[:, None].to(device)  # [sum H, 1]

    def _head_mean(self, values: Tensor) -> Tensor:
        """Mean over each layer's heads: [sum H, B, ...] to [N, B, ...]."""
        assert self._head_index is not None
        gathered = values.index_select(0, self._head_index)
        padded = gathered.reshape(*self._head_used.shape, *values.shape[1:])  # [N, widest, B, ...]
        ones = (1,) * (values.ndim - 1)
        used = self._head_used.reshape(*self._head_used.shape, *ones)
        means: Tensor = (padded * used).sum(1) / self._head_counts.reshape(-1, *ones)
        return means

    def finished(self) -> dict[str, Any]:
        """Tensor fields of the `Record`, on the CPU, after checking that the run is whole."""
        differing = [layer for layer, differs in self._differing_masks.items() if differs.item()]
        if differing:
            raise RecordingError(
                f"the attention mask at {', '.join(differing)} depends on the head or the query, "
                "so its attention per token cannot be recorded."
            )
        tensors = {name: slab.finished(self.calls) for name, slab in self._slabs.items()}
        maps = {
            layer: self._as_image(layer, token_map[self._rows].mean(1))
            for layer, token_map in self._maps.items()
        }
        self._check_whole(tensors, maps)
        return {
            "layers": tuple(self._recordings),
            "layer_heads": self._heads,
            "layer_queries": tuple(recording.queries for recording in self._recordings.values()),
            "timesteps": self._timesteps.finished(self.calls),
            "token_maps": maps or None,
            **tensors,
        }

    def _as_image(self, layer: str, token_map: Tensor) -> Tensor:
        """A map [B, Lq] as [B, h_l, w_l]: the latent size, halved until it fits."""
        height, width = self._size
        queries = token_map.shape[1]
        while height * width > queries and max(height, width) > 1:
            height, width = -(-height // 2), -(-width // 2)
        if height * width != queries:
            raise RecordingError(
                f"got {queries} query positions at {layer}, expected the latent's "
                f"{self._size[0]} x {self._size[1]} halved some number of times."
            )
        return token_map.reshape(-1, height, width).to("cpu", torch.float32, copy=True)

    def _check_whole(self, tensors: Mapping[str, Tensor], maps: Mapping[str, Tensor]) -> None:
        """Refuse NaN: a row that was never written, or numbers that broke on the way."""
        broken = [layer for layer, token_map in maps.items() if token_map.isnan().any()]
        layers = tuple(self._recordings)
        of_head = [
            name for name, heads in zip(layers, self._heads, strict=True) for _ in range(heads)
        ]
        for name, tensor in tensors.items():
            if name == "gap_squared":
                calls = tensor.flatten(1).isnan().any(1).nonzero().flatten().tolist()
                if calls:
                    raise RecordingError(
                        f"the denoiser's output holds nan in calls {calls}, expected numbers."
                    )
                continue
            nan = tensor.transpose(0, 1).flatten(1).isnan().any(1).tolist()
            names = of_head if name.startswith("head_") else layers
            broken += [layer for layer, is_nan in zip(names, nan, strict=True) if is_nan]
        if broken:
            raise RecordingError(
                f"the attention statistics hold nan at {', '.join(dict.fromkeys(broken))}: the "
                "run was not recorded whole."
            )
