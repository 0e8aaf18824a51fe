"""`Record`: what one run of a pipeline left behind for the detectors. Frozen data, torch only."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn, Self

import torch
from torch import Tensor

from memattn import gap_spaces, record_files
from memattn.errors import RecordError, RecordingError

Field = Literal["token_mass", "entropy", "gap_squared", "token_maps"]
Space = Literal["output", "epsilon", "x0"]

FIELDS: tuple[Field, ...] = ("token_mass", "entropy", "gap_squared", "token_maps")

# Axes of calls and of samples in every tensor field; None where it has no such axis.
_AXES: dict[str, tuple[int | None, int | None]] = {
    "timesteps": (0, None),
    "sigmas": (0, None),
    "prompt_lengths": (None, 0),
    "token_mass": (0, 2),
    "entropy": (0, 2),
    "gap_squared": (0, 1),
    "map_tokens": (None, 0),
    "token_entropy": (0, 2),
    "head_token_mass": (0, 2),
    "head_entropy": (0, 2),
}
_CALL_AXIS = {name: axis for name, (axis, _) in _AXES.items() if axis is not None}
_SAMPLE_AXIS = {name: axis for name, (_, axis) in _AXES.items() if axis is not None}
_SETTINGS = ("layers", "layer_heads", "layer_queries", "prediction_type", "scheduled_calls")
_MAP_PREFIX = "token_maps/"

_HOW_TO_RECORD = {
    "prompt_lengths": "record a pipeline that is given prompts, or pass prompt_lengths=",
    "gap_squared": "record a guided run (guidance_scale > 1) with "
    "memattn.record(pipe, fields=('gap_squared',))",
    "map_tokens": "record it with memattn.record(pipe, fields=('token_maps',))",
    "token_entropy": "record it with memattn.record(pipe, entropy_per_token=True)",
    "head_token_mass": "record it with memattn.record(pipe, heads=True)",
    "head_entropy": "record it with memattn.record(pipe, heads=True)",
}


# slots: a blank record has no class-level defaults, so reading any field reaches __getattr__.
@dataclass(frozen=True, eq=False, kw_only=True, repr=False, slots=True)
class Record:
    """What was recorded during one run: one entry per denoiser *call*, one row per sample.

    Samples are images in the order the pipeline returns them (prompt 0 image 0, prompt 0 image 1,
    ...). Only the conditional half of a guided run is kept. Fields that were not recorded are None.

    Attributes:
        layers: Names of the recorded cross-attention layers in forward order [N].
        layer_heads: Heads of each layer [N].
        layer_queries: Query positions of each layer [N].
        timesteps: Timestep of each call [S], float32.
        sigmas: Noise level of each call [S], float32: sqrt((1 - abar) / abar); NaN where no
            scheduler was known.
        prediction_type: What the denoiser predicts: "epsilon", "v_prediction", "sample", or
            "unknown" where no scheduler was known.
        scheduled_calls: Calls the scheduler had planned, None if unknown; more than S when the run
            was stopped early.
        prompt_lengths: Tokens of each prompt with begin and end token [B], int64, None if unknown.
        token_mass: Sum over queries of the attention each token received, mean over heads
            [S, N, B, Lk], float32; sums to the layer's `layer_queries` over tokens.
        entropy: Row entropy, mean over queries and heads [S, N, B], float32, nats.
        gap_squared: Squared difference of conditional and unconditional raw output, summed over
            channels [S, B, h, w], float32.
        token_maps: Attention to one token in the last call, mean over heads: layer name to
            [B, h_layer, w_layer], float32.
        map_tokens: The token whose map was recorded [B], int64.
        token_entropy: Sum over queries of -p ln p per token, mean over heads [S, N, B, Lk]
            (`entropy_per_token=True`).
        head_token_mass: `token_mass` of every head [S, sum of layer_heads, B, Lk] (`heads=True`).
        head_entropy: `entropy` of every head [S, sum of layer_heads, B] (`heads=True`).
    """

    layers: tuple[str, ...]
    layer_heads: tuple[int, ...]
    layer_queries: tuple[int, ...]
    timesteps: Tensor
    sigmas: Tensor
    prediction_type: str
    scheduled_calls: int | None
    prompt_lengths: Tensor | None = None
    token_mass: Tensor | None = None
    entropy: Tensor | None = None
    gap_squared: Tensor | None = None
    token_maps: dict[str, Tensor] | None = None
    map_tokens: Tensor | None = None
    token_entropy: Tensor | None = None
    head_token_mass: Tensor | None = None
    head_entropy: Tensor | None = None

    def __getattr__(self, name: str) -> NoReturn:
        """Reached for fields of a record that is still being recorded, and for unknown names."""
        if name in type(self).__slots__:
            raise RecordingError(
                f"got a read of {name} from a record that is not filled yet: it is filled when "
                "the with block ends without an error."
            )
        raise AttributeError(f"'Record' object has no attribute '{name}'")

    def __repr__(self) -> str:
        """One line with the sizes, never the tensors."""
        try:
            layers = self.layers
        except RecordingError:
            return "Record(not filled yet)"
        held = [name for name in (*_AXES, "token_maps") if getattr(self, name) is not None]
        return f"Record(calls={self.calls}, layers={len(layers)}, fields={held})"

    @property
    def calls(self) -> int:
        """Recorded denoiser calls S."""
        return self.timesteps.shape[0]

    @property
    def samples(self) -> int:
        """Recorded samples B."""
        for name, axis in _SAMPLE_AXIS.items():
            tensor = getattr(self, name)
            if tensor is not None:
                return int(tensor.shape[axis])
        raise RecordError("this record holds no samples: no field was recorded.")

    @property
    def tokens(self) -> int:
        """Text tokens Lk, padding included."""
        return int(self.require("token_mass").shape[-1])

    def require(self, name: str) -> Any:  # noqa: ANN401 (a tensor, or the dict of token maps)
        """The field `name`, or an error that says how to record it.

        Args:
            name: Name of a field of `Record`.

        Returns:
            The field's value.

        Raises:
            RecordError: If the field was not recorded.
            ValueError: If `Record` has no such field.
        """
        if name not in type(self).__slots__:
            raise ValueError(f"got the field name {name!r}, expected a field of Record.")
        value = getattr(self, name)
        if value is None:
            how = f"record it with memattn.record(pipe, fields=({name!r},))"
            raise RecordError(f"this record holds no {name}; {_HOW_TO_RECORD.get(name, how)}.")
        return value

    def layer_index(self, layer: int | str) -> int:
        """Index of a layer given by name, or by its index in forward order (negative from the end).

        Raises:
            RecordError: If the record has no such layer.
        """
        if isinstance(layer, str) and layer in self.layers:
            return self.layers.index(layer)
        if isinstance(layer, int) and -len(self.layers) <= layer < len(self.layers):
            return layer % len(self.layers)
        raise RecordError(
            f"got layer {layer!r}, expected an index below {len(self.layers)} or one of "
            f"{', '.join(self.layers)}."
        )

    def attention(self) -> Tensor:
        """Mean attention each token received, per layer.

        abar[s, n, b, i] = mean over heads and queries of p(query, i): `token_mass` divided by the
        layer's queries.

        Returns:
            [S, N, B, Lk], float32; sums to 1 over tokens.

        Raises:
            RecordError: If `token_mass` was not recorded.
        """
        token_mass: Tensor = self.require("token_mass")
        queries = torch.tensor(self.layer_queries, device=token_mass.device, dtype=torch.float32)
        return token_mass / queries[:, None, None]

    def mean_attention(self) -> Tensor:
        """Mean attention each token received over all heads of all layers.

        Every head counts once, so a layer weighs as much as it has heads.

        Returns:
            [S, B, Lk], float32; sums to 1 over tokens.

        Raises:
            RecordError: If `token_mass` was not recorded.
        """
        attention = self.attention()
        heads = torch.tensor(self.layer_heads, device=attention.device, dtype=torch.float64)
        # In float32 the order of the sum, which depends on the batch, would show in the result.
        return ((attention.double() * heads[:, None, None]).sum(1) / heads.sum()).float()

    def gap(self, space: Space = "output") -> Tensor:
        """Squared difference of conditional and unconditional prediction, per pixel.

        With alpha = 1 / sqrt(1 + sigma^2) and s = sigma * alpha, differences of predictions
        convert as eps = alpha * v = x0 / sigma and x0 = s * v = sigma * eps, up to signs.

        Args:
            space: "output" for the raw model output, "epsilon" for the noise prediction, "x0" for
                the prediction of the clean latent.

        Returns:
            Squared gap summed over channels [S, B, h, w], float32.

        Raises:
            RecordError: If the gap was not recorded, or the noise levels that the conversion
                needs are unknown.
            ValueError: If `space` is none of the three.
        """
        gap_squared: Tensor = self.require("gap_squared")
        factors = gap_spaces.squared_factors(self.prediction_type, space, self.sigmas)
        return gap_squared * factors.to(gap_squared)[:, None, None, None]

    def save(self, path: str | Path) -> None:
        """Write the record to one safetensors file, whole or not at all.

        Raises:
            RecordError: If the file cannot be written.
        """
        tensors = {name: getattr(self, name) for name in _AXES}
        for layer, token_map in (self.token_maps or {}).items():
            tensors[_MAP_PREFIX + layer] = token_map
        present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        record_files.write(Path(path), present, {name: getattr(self, name) for name in _SETTINGS})

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a record that `save` wrote; its tensors are on the CPU.

        Raises:
            RecordError: If the file is missing, damaged, or holds no record.
        """
        tensors, header = record_files.read(Path(path))
        maps = {
            name.removeprefix(_MAP_PREFIX): tensors.pop(name)
            for name in sorted(tensors)
            if name.startswith(_MAP_PREFIX)
        }
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in header.items()
        }
        try:
            record = cls(**settings | tensors, token_maps=maps or None)
        except TypeError as error:
            raise RecordError(f"got {path}, expected a record with other fields.") from error
        record._check_shapes(path)
        return record

    @classmethod
    def concatenate(cls, records: Sequence[Self]) -> Self:
        """Join records of several runs of one model, with the same settings, along the samples.

        Args:
            records: At least one record.

        Returns:
            One record whose samples are those of all records, in order.

        Raises:
            RecordError: If the records differ in layers, calls, noise levels or recorded fields.
        """
        if not records:
            raise RecordError("got no records to concatenate, expected at least one.")
        first = records[0]
        for record in records[1:]:
            first._check_joins(record)
        changes: dict[str, Any] = {}
        for name, axis in _SAMPLE_AXIS.items():
            if getattr(first, name) is not None:
                changes[name] = torch.cat([getattr(record, name) for record in records], dim=axis)
        if first.token_maps is not None:
            changes["token_maps"] = {
                layer: torch.cat([record.require("token_maps")[layer] for record in records])
                for layer in first.token_maps
            }
        return dataclasses.replace(first, **changes)

    def select(self, indices: Sequence[int] | Tensor) -> Self:
        """The record of some samples only.

        Args:
            indices: Samples to keep, in the order wanted; negative ones count from the end.

        Raises:
            RecordError: If an index is out of range.
        """
        wanted = torch.as_tensor(indices, dtype=torch.int64).flatten()
        samples = self.samples
        if ((wanted < -samples) | (wanted >= samples)).any():
            raise RecordError(f"got samples {wanted.tolist()}, expected indices below {samples}.")
        wanted = wanted % samples
        changes: dict[str, Any] = {
            name: getattr(self, name).index_select(axis, wanted.to(getattr(self, name).device))
            for name, axis in _SAMPLE_AXIS.items()
            if getattr(self, name) is not None
        }
        if self.token_maps is not None:
            changes["token_maps"] = {
                layer: token_map.index_select(0, wanted.to(token_map.device))
                for layer, token_map in self.token_maps.items()
            }
        return dataclasses.replace(self, **changes)

    def truncate(self, calls: int) -> Self:
        """The first `calls` calls: what would be known after that many.

        Token maps belong to the last call, so a shorter record has none.

        Raises:
            RecordError: If the record has fewer calls, or `calls` is below 1.
        """
        if not 1 <= calls <= self.calls:
            raise RecordError(f"got {calls} calls to keep, expected 1 to {self.calls}.")
        if calls == self.calls:
            return self
        changes: dict[str, Any] = {
            name: getattr(self, name)[:calls]
            for name, axis in _CALL_AXIS.items()
            if getattr(self, name) is not None
        }
        changes["scheduled_calls"] = self.scheduled_calls or self.calls
        return dataclasses.replace(self, token_maps=None, map_tokens=None, **changes)

    def _check_joins(self, other: Self) -> None:
        """Refuse to join records that do not describe runs of one model with one schedule."""
        for name in _SETTINGS:
            if getattr(self, name) != getattr(other, name):
                raise RecordError(
                    f"got records whose {name} differ, expected runs of one model with the same "
                    "settings."
                )
        for name in ("timesteps", "sigmas"):
            if not _same(getattr(self, name), getattr(other, name)):
                raise RecordError(
                    f"got records whose {name} differ, expected runs of the same calls."
                )
        for name, axis in _SAMPLE_AXIS.items():
            mine, theirs = getattr(self, name), getattr(other, name)
            if (mine is None) != (theirs is None):
                raise RecordError(
                    f"got records of which only some hold {name}, expected the same fields in all."
                )
            if mine is None:
                continue
            sizes = [size for i, size in enumerate(mine.shape) if i != axis]
            if sizes != [size for i, size in enumerate(theirs.shape) if i != axis]:
                raise RecordError(f"got records whose {name} differ in shape.")
        if (self.token_maps or {}).keys() != (other.token_maps or {}).keys():
            raise RecordError("got records whose token_maps differ in layers.")

    def _check_shapes(self, path: str | Path) -> None:
        """Refuse a file whose tensors contradict each other or its header."""
        layers = len(self.layers)
        expected: dict[str, dict[int, int]] = {name: {} for name in _AXES}
        for name, axis in _CALL_AXIS.items():
            expected[name][axis] = self.calls
        for name in ("token_mass", "entropy", "token_entropy"):
            expected[name][1] = layers
        for name in ("head_token_mass", "head_entropy"):
            expected[name][1] = sum(self.layer_heads)
        for name, axis in _SAMPLE_AXIS.items():
            expected[name][axis] = self.samples
        for name, sizes in expected.items():
            tensor = getattr(self, name)
            if tensor is not None and any(
                axis >= tensor.ndim or tensor.shape[axis] != size for axis, size in sizes.items()
            ):
                raise RecordError(
                    f"got {path}, expected a record file: its {name} has the wrong shape."
                )
        if not layers == len(self.layer_heads) == len(self.layer_queries):
            raise RecordError(f"got {path}, expected a record file: its layer lists differ.")


def _same(left: Tensor, right: Tensor) -> bool:
    """Whether two tensors hold the same values; NaN equals NaN."""
    return left.shape == right.shape and torch.allclose(left, right, 0, 0, equal_nan=True)
