"""Every kernel once on shapes with ragged ends, in memory that starts as nan.

Run as a program, on a GPU under compute-sanitizer, without torch's caching allocator: each tensor
is then an allocation of its own, and an access beyond its end is seen. What the kernels read was
copied from the host or written by kernels of ours, so that no others need be watched.

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer python -m tests.kernels.sanitized cuda
"""

import contextlib
import itertools
import sys

import torch

import memattn
from memattn.kernels.cuda.limits import DIMS
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
# Of CUDA: more chunks than any GPU runs blocks at a time, so that blocks go from chunk to chunk and
# from head to head.
MANY = [(16, 40, 65, 77, 40), (16, 40, 129, 130, 40)]
DTYPES = [torch.float32, torch.bfloat16]

# CUDA has a kernel for each: every dimension with keys of every class, the dtypes in turns.
KEYS = (17, 77, 120, 130)
SHORT = [
    ((1, 2, 67, keys, dim), (torch.float16, torch.bfloat16)[(i + j) % 2])
    for i, keys in enumerate(KEYS)
    for j, dim in enumerate(DIMS)
]


@contextlib.contextmanager
def poisoned():
    """Memory that torch allocates is nan until it is written."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)  # which fills what is empty
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def copied(tensors, device):
    """Tensors, or a dict of them, copied from the host as they lie in memory."""
    if isinstance(tensors, dict):
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    return tuple(tensor.to(device) for tensor in tensors)


def present(result):
    return [tensor.detach() for tensor in result if tensor is not None]


def attend(tensors, arguments, backend):
    """Output, statistics and gradients of `cross_attention`."""
    leaves = [tensor.detach().requires_grad_() for tensor in tensors]
    with poisoned():
        result = memattn.cross_attention(*leaves, **arguments, backend=backend)
        ones = torch.ones_like(result.output, device="cpu").to(result.output.device)
        gradients = torch.autograd.grad(result.output, leaves, ones)
    return [*present(result), *gradients]


def attend_forward(tensors, arguments, backend, *, statistics):
    """What `cross_attention` returns, without gradients."""
    with poisoned():
        return present(
            memattn.cross_attention(*tensors, **arguments, statistics=statistics, backend=backend)
        )


def look_at_columns(tensors, arguments, normalised, device, backend):
    """All of `column_statistics`, normalised over all keys or over the columns alone.

    Takes tensors on the host.
    """
    count = (tensors[1].shape[2] + 1) // 2
    given = {}
    if normalised:
        given["logsumexp"] = explicit_cross_attention(*tensors).logsumexp.float()
    if arguments:
        given["key_bias"] = arguments["key_bias"][:, :count].contiguous()
        given["token"] = arguments["token"] % count
    query, key, _ = copied(tensors, device)
    given = copied(given, device)
    with poisoned():
        return present(
            memattn.column_statistics(query, key[:, :, :count], **given, backend=backend)
        )


def calls(device, backend, dtypes, shapes):
    """Every result on the shapes that a backend takes, with nothing added and with everything."""
    for shape in shapes:
        for dtype in dtypes:
            on_host = inputs(shape, dtype)
            tensors = copied(on_host, device)
            if backend == "cuda" and dict(memattn.explain(*tensors))[backend] is not None:
                continue
            yield attend_forward(tensors, {}, backend, statistics=False)
            for arguments in ({}, extras(shape)):
                yield attend(tensors, copied(arguments, device), backend)
                if takes_columns(tensors, backend):
                    for normalised in (True, False):
                        yield look_at_columns(on_host, arguments, normalised, device, backend)


def short_calls(device, backend):
    """Results on the shapes of SHORT that this GPU has the memory for, with sums and without."""
    for shape, dtype in [*SHORT, *((shape, torch.bfloat16) for shape in MANY)]:
        tensors = copied(inputs(shape, dtype), device)
        if dict(memattn.explain(*tensors))[backend] is None:
            yield attend_forward(tensors, copied(extras(shape), device), backend, statistics=True)
            yield attend_forward(tensors, {}, backend, statistics=False)


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
        short = short_calls(device, backend) if backend == "cuda" else ()
        for result in itertools.chain(calls(device, backend, dtypes, shapes), short):
            for tensor in result:
                assert not tensor.isnan().any(), f"{backend}: something was not written"
                looked_at += 1
        assert looked_at, f"{backend} took no shape"
        print(f"{backend} on {device}: {looked_at} results, all of them written")
    if able == ["reference"]:
        sys.exit(f"got no kernels on {device}, expected some: see `memattn info`")


if __name__ == "__main__":
    main(*sys.argv[1:])
