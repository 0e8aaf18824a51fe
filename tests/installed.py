"""Run by `make dist` in a clean environment: the installed wheel is whole, and not the checkout."""

import sys
from pathlib import Path

import memattn
import memattn.benchmarks
import memattn.kernels.reference
from memattn.testbed import load_manifest, load_pipeline

for module in (memattn, memattn.benchmarks, memattn.kernels.reference):
    location = Path(module.__file__)
    assert location.is_relative_to(sys.prefix), f"{module.__name__} was imported from {location}"

assert load_manifest().entries
print(f"installed: memattn {memattn.__version__}, {type(load_pipeline()).__name__} of the testbed")
