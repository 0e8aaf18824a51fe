"""Results small enough to compute with by hand."""

from memattn.benchmarks.results import PairedRatio, Results, Timing

MACHINE = {
    "folder": "cpu-2-cores",
    "device_type": "cpu",
    "device": "Some Processor",
    "cpu_capability": "AVX2",
    "threads": 2,
    "memattn": "0.1.0",
    "torch": "2.13.0",
    "commit": "abc1234",
    "busy": None,
    "limits": {"copy": 1.2e12, "fp32": 1e12, "bf16": 2e12},
}


def timing(shape, dtype, provider, gives, turns, *, keys=77, size=6_000_000, flops=1_000_000):
    # six million bytes take five microseconds to copy, a million operations one or a half
    return Timing(shape, keys, size, flops, dtype, provider, gives, tuple(turns))


def case(shape, dtype, *, ours, **about):
    """One case whose rivals take 10 (torch's choice), 8 (its fastest), 40 and 50 microseconds."""
    return (
        timing(shape, dtype, "memattn_cpu", "with statistics", ours, **about),
        timing(shape, dtype, "memattn_cpu_without", "without statistics", (5.0,) * 3, **about),
        timing(shape, dtype, "memattn_reference", "with statistics", (100.0,) * 3, **about),
        timing(
            shape, dtype, "memattn_reference_without", "without statistics", (10.0,) * 3, **about
        ),
        timing(shape, dtype, "sdpa", "plain", (10.0,) * 3, **about),
        timing(shape, dtype, "sdpa_math", "plain", (8.0,) * 3, **about),
        timing(shape, dtype, "sdpa_with_sums", "sums", (50.0,) * 3, **about),
        timing(shape, dtype, "eager_with_sums", "sums", (40.0,) * 3, **about),
    )


def kernels(*cases):
    return Results("2026-11-22", MACHINE, tuple(row for rows in cases for row in rows), ())


def recording(*, high=1.004):
    pair = PairedRatio(
        "sd14", "whole denoiser", "fp32", "cpu", 0.99, 0.981, high, 40, 2.5, 1_230_000, 1_100_000
    )
    part = PairedRatio("sd14", "cross-attention layers", "fp32", "cpu", 0.7, 0.68, 0.71, 40, 0.4)
    return Results("2026-11-22", MACHINE, (), (pair, part))
