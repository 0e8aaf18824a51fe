"""The benchmark suite: real layer shapes, honest rivals, ratios. `memattn bench` runs it.

Sources lie in the checkout's `benchmarks/` and install as `memattn.benchmarks`. The files
`bench_<operation>.py` are pytest-benchmark's; everything else is what they stand on.
"""
