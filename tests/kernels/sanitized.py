"""Every kernel once on shapes with ragged ends, in memory that starts as nan.

Run as a program, on a GPU under compute-sanitizer, without torch's caching allocator: each tensor
is then an allocation of its own, and an access beyond its end is seen.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer python -m tests.kernels.sanitized cuda
"""

import contextlib
import sys

import torch

import memattn
from memattn.ops.column_statistics import OPERATION
from memattn.ops.contract import column_statistics_request
from memattn.ops.dispatch import reasons
from memattn.testing import explicit_cross_attention
from tests.kernels.cross_attention import extras, inputs

# batch, heads, queries, keys, head dimension: one row and one key, one part of keys and of depth
# and two, one look and two, rows and keys beyond the end of their tiles, sums of several programs,
# several tiles of queries to a program.
SHAPES = [
    (1, 1, 1, 1, 8),
    (2, 3, 65, 77, 40),
    (1, 2, 300, 16, 24),
    (1, 1, 63, 128, 160),
    (1, 2, 66, 129, 64),
    (1, 1, 130, 333, 72),
    (1, 1, 4200, 77, 40),
    (1, 1, 4200, 120, 72),
    (1, 1, 4200, 300, 72),
]
DTYPES = [torch.float32, torch.bfloat16]


@contextlib.contextmanager
def poisoned():
    """Memory that torch allocates is nan until it is written."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # which fills what is empty
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def attend(tensors, arguments, backend):
    """Output, statistics and gradients of `cross_attention`."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with poisoned():
        result = memattn.cross_attention(*leaves, **arguments, backend=backend)
        gradients = torch.autograd.grad(result.output, leaves, torch.ones_like(result.output))
    return [*(tensor.detach() for tensor in result if tensor is not None), *gradients]


def look_at_columns(tensors, arguments, normalised, backend):
    """All of `column_statistics`, normalised over all keys or over the columns alone."""
    query, key, value = tensors
    columns = key[:, :, : (key.shape[2] + 1) // 2]
    logsumexp = None
    if normalised:
        logsumexp = explicit_cross_attention(query, key, value).logsumexp
    bias, token = arguments.get("key_bias"), arguments.get("token")
    if bias is not None:
        bias, token = bias[:, : columns.shape[2]], token % columns.shape[2]
    with poisoned():
        result = memattn.column_statistics(
            query, columns, logsumexp, key_bias=bias, token=token, backend=backend
        )
    return [tensor for tensor in result if tensor is not None]


def calls(device, backend, dtypes, shapes):
    """Every result on the shapes that a backend takes, with nothing added and with everything."""
    for shape in shapes:
        for dtype in dtypes:
            tensors = inputs(shape, dtype, device)
            if backend == "cuda" and dict(memattn.explain(*tensors))[backend] is not None:
                continue
            for arguments in ({}, extras(shape, device)):
                yield attend(tensors, arguments, backend)
                if takes_columns(tensors, backend):
                    for normalised in (True, False):
                        yield look_at_columns(tensors, arguments, normalised, backend)


def takes_columns(tensors, backend):
    """Whether a backend has `column_statistics`."""
    query, key, _ = tensors
    request = column_statistics_request(query, key, None, key_bias=None, token=None, scale=None)
    return dict(reasons(OPERATION, request))[backend] is None


def main(device, *, dtypes=DTYPES, shapes=SHAPES):
    """Run every compiled backend, and say how many results were looked at."""
    torch.manual_seed(0)
    tiny = torch.zeros(1, 1, 1, 64, device=device, dtype=torch.float16)
    able = [name for name, reason in memattn.explain(tiny, tiny, tiny) if reason is None]
    for backend in able:
        if backend == "reference":
            continue
        looked_at = 0
        for result in calls(device, backend, dtypes, shapes):
            for tensor in result:
                assert not tensor.isnan().any(), f"{backend}: something was not written"
                looked_at += 1
        assert looked_at, f"{backend} took no shape"
        print(f"{backend} on {device}: {looked_at} results, all of them written")
    if able == ["reference"]:
        sys.exit(f"got no kernels on {device}, expected some: see `memattn info`")


if __name__ == "__main__":
    main(*sys.argv[1:])
