"""Run by `make dist` and `make wheel` where a wheel is installed; it needs little else but torch.

Its arguments are the backends that the wheel holds a compiled library for.
"""

import platform
import sys
from pathlib import Path

for name in ("triton", "diffusers"):
    sys.modules[name] = None  # neither can be installed everywhere

import torch  # noqa: E402

import memattn  # noqa: E402
from memattn.testing import assert_within_error_budget  # noqa: E402

assert Path(memattn.__file__).is_relative_to(sys.prefix), f"imported from {memattn.__file__}"

compiled = sys.argv[1:]
torch.manual_seed(0)
query, key, value = (torch.randn(2, 3, length, 40) for length in (50, 77, 77))
reasons = dict(memattn.explain(query, key, value))
assert [name for name in ("cuda", "triton", "cpu") if reasons[name] is None] == compiled, reasons
where = f"python {platform.python_version()}, torch {torch.__version__}"
if not compiled:
    print(f"installed without a compiled library ({where}): {reasons['cpu']}")

for backend in compiled:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        inputs = [tensor.to(dtype) for tensor in (query, key, value)]
        result = memattn.cross_attention(*inputs, backend=backend)
        eager = memattn.cross_attention(*inputs, backend="reference")
        exact = memattn.cross_attention(*(x.double() for x in inputs), backend="reference")
        for name in ("output", "token_mass", "token_entropy"):
            got, want, near = (getattr(x, name) for x in (result, exact, eager))
            assert_within_error_budget(got, exact=want, eager=near)
    leaf = query.clone().requires_grad_()
    memattn.cross_attention(leaf, key, value, backend=backend).output.sum().backward()
    assert leaf.grad.isfinite().all()
    print(f"installed with compiled {backend} kernels: they match the reference ({where})")
