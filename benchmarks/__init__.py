"""The benchmark suite: real layer shapes, honest rivals, ratios. `memattn bench` runs it.

From the command to a timed call:

1. `memattn bench` (memattn/cli/bench.py) asks `busy`, then `session` starts pytest in a process.
2. pytest collects `bench_<operation>.py`; `conftest` makes a test of every case and provider.
3. The first test of a case has `measurement` check all of its providers (`verification`).
4. On a GPU, `graphs` captures many calls of each, and what a replay gives is checked as well.
5. `turns` then times all that in turns, and plays the rounds back to pytest-benchmark.
6. `results` keeps of pytest-benchmark's JSON what is compared; `ratios`, `targets` and `tables`
   compare.
7. `bench_recording` does the same with whole denoisers: `denoisers`, `arms`, `paired`; on a GPU
   also with a `captured` call, and with what was asked of the host (`host_calls`).

Beside it, `compiled` says what Triton makes of its kernels, `tuning` which tiles are fastest, and
`counters` what a GPU's own counters say of each kernel.

Sources lie in the checkout's `benchmarks/` and install as `memattn.benchmarks`.
"""
