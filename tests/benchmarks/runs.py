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


GPU = {**MACHINE, "folder": "h200", "device_type": "cuda", "device": "NVIDIA H200"}


def on_gpu(timing, *, warm=0.5, cold=0.75):
    """The same, with kernel times that are a part of what the host waits for."""
    parts = [tuple(part * turn for turn in timing.turns_us) for part in (warm, cold)]
    return timing._replace(warm_us=parts[0], cold_us=parts[1])


def gpu_kernels(*cases):
    """The cases on a GPU, with flash-colreduce; ours has kernel times of 0.25 and 0.5."""
    rows = []
    for rivals in cases:
        first = rivals[0]
        slow, fast = (
            first._replace(provider=f"sdpa_{name}_with_colreduce", gives="mass", turns_us=(us,) * 3)
            for name, us in (("math", 30.0), ("flash", 20.0))
        )
        ours = first._replace(provider="memattn_triton")
        without = rivals[1]._replace(provider="memattn_triton_without")
        rows += [on_gpu(ours, warm=0.25, cold=0.5), on_gpu(without)]
        rows += [on_gpu(each) for each in (*rivals[2:], slow, fast)]
    return Results("2026-11-23", GPU, tuple(rows), ())


def failing(run, *failed):
    """The run, in which providers failed: who, on which case, and why."""
    return run._replace(machine={**run.machine, "failed": [list(each) for each in failed]})


def joint(*, flash=(11.0,) * 3):
    """Joint attention on a GPU: cuDNN's attention is the fastest, flash attention ours."""
    about = {"keys": 4429, "size": 100_000_000, "flops": 1_000_000}
    rows = [
        timing("sd3_medium", "bf16", name, gives, turns, **about)._replace(text=333)
        for name, gives, turns in (
            ("memattn_triton_on_flash", "with statistics", flash),
            ("memattn_triton_on_cudnn", "with statistics", (12.0,) * 3),
            ("sdpa", "plain", (14.0,) * 3),
            ("sdpa_cudnn", "plain", (10.0,) * 3),
        )
    ]
    return Results("2026-11-23", GPU, tuple(on_gpu(row, cold=1.0) for row in rows), ())


def recording(*, high=1.004, launches=(None, None), waits=(None, None)):
    """A recorded denoiser; `launches` and `waits`, recorded and stock, are a GPU's."""
    memory = (1_230_000, 1_100_000)
    pair = PairedRatio(
        *("sd14", "whole denoiser", "fp32", "cpu"),
        *(0.99, 0.981, high, 40, 2.5, *memory, *launches, *waits),
    )
    part = PairedRatio("sd14", "cross-attention layers", "fp32", "cpu", 0.7, 0.68, 0.71, 40, 0.4)
    return Results("2026-11-22", MACHINE, (), (pair, part))
