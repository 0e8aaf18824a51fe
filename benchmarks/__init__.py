"""The benchmark suite: real layer shapes, honest rivals, ratios. `memattn bench` runs it.

From the command to a timed call:

1. `memattn bench` (memattn/cli/bench.py) asks `busy`, then `session` starts pytest in a process.
2. pytest collects `bench_<operation>.py`; `conftest` makes a test of every case and provider.
3. The first test of a case has `measurement` check all of its providers (`verification`).
4. `turns` then times those in turns, and plays the rounds back to pytest-benchmark.
5. `results` keeps of pytest-benchmark's JSON what is compared; `ratios` and `tables` compare.
6. `bench_recording` does the same with whole denoisers: `denoisers`, `arms`, `paired`.

Sources lie in the checkout's `benchmarks/` and install as `memattn.benchmarks`.
"""
