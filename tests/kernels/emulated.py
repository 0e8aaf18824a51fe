"""Run the tests of `cross_attention` with the CUDA kernels' source on the processor as `cuda`.

Run as a program, in a process of its own: the backend is put in before tests look for backends.
"""

import sys

import pytest
import torch

from memattn.ops.cross_attention import OPERATION
from memattn.ops.dispatch import _Functions
from tests.kernels import cuda_on_cpu

FILES = ["edges", "layouts"]
EVERYTHING = [*FILES, "properties", "budget", "rounding"]


def why_not(request):
    query, keys = request.query, request.key.shape[2]
    if query.device.type != "cpu" or query.dtype not in (torch.float16, torch.bfloat16):
        return f"it takes 16 bits on the cpu, got {query.dtype} on {query.device}"
    if any(tensor.requires_grad for tensor in request if isinstance(tensor, torch.Tensor)):
        return "it has no gradients here"
    if cuda_on_cpu.padded(query.shape[3], keys) is None:
        return f"{keys} keys of dimension {query.shape[3]} are not compiled here"
    return None


if __name__ == "__main__":
    OPERATION._arms["cuda"].functions = _Functions(
        why_not, lambda request: False, cuda_on_cpu.cross_attention
    )
    # The packages are those of the process that asked, whatever pyproject.toml says.
    settings = ["--quiet", "--override-ini=pythonpath=", "-p", "no:cacheprovider"]
    settings += ["-k", "cuda-cpu and not float32", "-rs"]
    names = EVERYTHING if sys.argv[1:] == ["everything"] else FILES
    files = [f"tests/kernels/test_cross_attention_{name}.py" for name in names]
    failed = pytest.main([*settings, *files])
    print("emulated")
    sys.exit(failed)
