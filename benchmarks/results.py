"""A run's results: read from pytest-benchmark's file, kept in one small enough to commit."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from memattn.benchmarks.providers import Kind
from memattn.errors import InputError
from memattn.whole import whole_file

# what is printed of the machine
_FACTS = ("device_type", "device", "threads", "cpu_capability", "torch", "memattn", "commit")


# How long a program waits for a call; on a GPU also how long that computes, its cache warm or cold.
Clock = Literal["eager", "warm", "cold"]


class Timing(NamedTuple):
    """One provider's times on one case.

    Attributes:
        shape: The layer's name.
        keys: Lk.
        bytes: Query, key, value and output, each once.
        flops: Operations of the two products.
        dtype: "fp32", "bf16" or "fp16".
        provider: The provider's name.
        gives: What the provider gives, and whose it is.
        turns_us: Median of each turn; turns of one case belong together across providers. As a
            program sees it that calls once and waits.
        text: How many of the keys are text, where the others are not; 0 in cross-attention.
        warm_us: On a GPU, the same of what the kernels take with the cache warm; else empty.
        cold_us: With the cache cold.
        not_captured: Why a GPU has neither, or "".
    """

    shape: str
    keys: int
    bytes: int
    flops: int
    dtype: str
    provider: str
    gives: Kind
    turns_us: tuple[float, ...]
    text: int = 0
    warm_us: tuple[float, ...] = ()
    cold_us: tuple[float, ...] = ()
    not_captured: str = ""

    def on(self, clock: Clock) -> tuple[float, ...]:
        """The turns on one clock; empty where it was not read."""
        return {"eager": self.turns_us, "warm": self.warm_us, "cold": self.cold_us}[clock]


class PairedRatio(NamedTuple):
    """A denoiser, or a part of it, changed against stock: a ratio from paired calls.

    Attributes:
        denoiser: Which denoiser.
        what: The part that was timed.
        dtype: The denoiser's dtype.
        backend: The backend that `auto` takes for its layers when they are recorded.
        ratio: Hodges and Lehmann's estimate from the pairs' ratios.
        ratio_low: Lower end of its 95 % interval.
        ratio_high: Upper end.
        pairs: How many pairs.
        stock_seconds: Median of the stock calls.
        extra_peak_bytes: Memory that the recorded run used beyond the stock one at its peak, or
            None where it was not measured.
        record_bytes: Memory that the record holds, or None.
        launches: What the host of a recorded run of one step launched on a GPU, kernels and copies,
            or None.
        stock_launches: The same of a stock run.
        waits: How often the host of such a recorded run waited for its GPU, or None.
        stock_waits: The same of a stock run.
    """

    denoiser: str
    what: str
    dtype: str
    backend: str
    ratio: float
    ratio_low: float
    ratio_high: float
    pairs: int
    stock_seconds: float
    extra_peak_bytes: int | None = None
    record_bytes: int | None = None
    launches: int | None = None
    stock_launches: int | None = None
    waits: int | None = None
    stock_waits: int | None = None


class Results(NamedTuple):
    """One run on one machine: kernels or paired ratios, the other is empty.

    Attributes:
        date: Day, as in "2026-11-22".
        machine: Facts of `memattn.benchmarks.machine`; "limits" as `memattn.benchmarks.limits` has
            them, with a run of the kernels; "node_us", what a kernel with nothing to do takes in a
            CUDA graph, with such a run on a GPU; "busy", what else the machine did, or None;
            "untimed", provider, case ("" for all) and reason of what was to be timed and could not
            be; "failed", the same of what went wrong.
        timings: Of a run of the kernels, or of joint attention.
        paired: Of the recording's run.
    """

    date: str
    machine: Mapping[str, Any]
    timings: tuple[Timing, ...]
    paired: tuple[PairedRatio, ...]

    @property
    def is_joint(self) -> bool:
        """Whether the timings are of joint attention."""
        return any(timing.text for timing in self.timings)

    @property
    def failed_cases(self) -> frozenset[str]:
        """Cases on which a provider of memattn's failed: there is no number to judge it by."""
        failed = self.machine.get("failed", ())
        return frozenset(case for name, case, _ in failed if name.startswith("memattn_"))


def from_pytest_benchmark(path: Path) -> Results:
    """Read what `pytest --benchmark-json` wrote; benchmarks of other suites are left out."""
    document = json.loads(path.read_text(encoding="utf-8"))
    timings, paired = [], []
    for benchmark in document["benchmarks"]:
        told = benchmark["extra_info"]
        if told.get("kind") == "kernel":
            timings.append(_timing(told))
        elif told.get("kind") == "paired":
            paired.append(_paired(told))
    machine = document["machine_info"]["memattn"]
    return Results(document["datetime"][:10], machine, tuple(timings), tuple(paired))


def save(results: Results, path: Path) -> None:
    """Write results to a JSON file, one timing a line so that a diff can be read."""
    found: list[Timing] | list[PairedRatio] = list(results.timings) or list(results.paired)
    lines = [json.dumps(_told(row)) for row in found]
    kind = "timings" if results.timings else "paired"
    head = json.dumps({"date": results.date, "machine": dict(results.machine)}, indent=1)
    rows = ",\n  ".join(lines)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as fresh:
        fresh.write_text(f'{head[:-2]},\n "{kind}": [\n  {rows}\n ]\n}}\n', encoding="utf-8")


def load(path: Path) -> Results:
    """Read a file that `save` wrote.

    Raises:
        InputError: If it is none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        results = Results(
            str(document["date"]),
            document["machine"],
            tuple(_timing(row) for row in document.get("timings", ())),
            tuple(_paired(row) for row in document.get("paired", ())),
        )
        _check(results)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(
            f"got {path}, expected a file that `memattn bench --save` wrote ({error})."
        ) from error
    return results


def _check(results: Results) -> None:
    """Refuse what tables could not be made of."""
    machine = results.machine
    missing = [name for name in _FACTS if name not in machine]
    if missing:
        raise ValueError(f"no {', '.join(missing)} of the machine")
    if bool(results.timings) == bool(results.paired):
        raise ValueError("no times, or of two kinds")
    if results.timings and not all(machine["limits"][name] > 0 for name in ("copy", "fp32")):
        raise ValueError("limits that are not positive")
    turns = {len(timing.turns_us) for timing in results.timings}
    kernel_turns = {len(timing.on(c)) for timing in results.timings for c in ("warm", "cold")}
    if len(turns) > 1 or kernel_turns - {0} - turns:
        raise ValueError("different numbers of turns")


def _told(row: Timing | PairedRatio) -> dict[str, object]:
    """A row's fields without those that say what is usual, and without needless digits."""
    usual = row._field_defaults
    return {
        name: _short(value)
        for name, value in row._asdict().items()
        if name not in usual or value != usual[name]
    }


def _timing(row: Mapping[str, Any]) -> Timing:
    filled: dict[str, Any] = {**Timing._field_defaults, **row}
    if len(filled["turns_us"]) < 2:
        raise ValueError(f"{len(filled['turns_us'])} turns")
    words = ("shape", "dtype", "provider", "gives", "not_captured")
    counts = ("keys", "bytes", "flops", "text")
    clocks = ("turns_us", "warm_us", "cold_us")
    return Timing(
        **{name: str(filled[name]) for name in words},  # type: ignore[arg-type]
        **{name: int(filled[name]) for name in counts},  # type: ignore[arg-type]
        **{name: tuple(map(_positive, filled[name])) for name in clocks},  # type: ignore[arg-type]
    )


def _paired(row: Mapping[str, Any]) -> PairedRatio:
    filled: dict[str, Any] = {**PairedRatio._field_defaults, **row}
    for name in ("ratio", "ratio_low", "ratio_high", "stock_seconds"):
        filled[name] = _positive(filled[name])
    return PairedRatio(**{name: filled[name] for name in PairedRatio._fields})


def _positive(number: Any) -> float:  # noqa: ANN401 (whatever a file may hold)
    value = float(number)
    if not 0 < value < float("inf"):
        raise ValueError(f"{value} is no time and no ratio")
    return value


def _short(value: object) -> object:
    """Floats with five significant digits: times are not reproducible further."""
    if isinstance(value, tuple):
        return [_short(each) for each in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value
