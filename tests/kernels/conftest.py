"""Tests of any head dimension on `cuda`, which has kernels for few of them."""

import pytest
import torch.nn.functional as F

import memattn
from memattn.errors import UnsupportedBackendError
from memattn.kernels.cuda.limits import DIMS

REFUSAL = "backend 'cuda' cannot run this call: it takes head dimensions of"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Lets a test for each backend and device call `cuda` with any dimension up to its largest."""
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    with pytest.MonkeyPatch.context() as patch:
        if "device" in parameters and "cuda" in parameters.values():
            patch.setattr(memattn, "cross_attention", padded(memattn.cross_attention))
        return (yield)


def padded(attention):
    """`cross_attention` that pads a dimension that `cuda` refuses with zeros.

    They add nothing to a logit, and what they get of the output is cut off again.
    """

    def call(query, key, value, *, scale=None, **arguments):
        dim = query.shape[3]
        try:
            return attention(query, key, value, scale=scale, **arguments)
        except UnsupportedBackendError as error:
            if not str(error).startswith(REFUSAL) or dim > DIMS[-1]:
                raise
        room = next(size for size in DIMS if size > dim) - dim
        wide = (F.pad(tensor, (0, room)) for tensor in (query, key, value))
        scale = dim**-0.5 if scale is None else scale
        result = attention(*wide, scale=scale, **arguments)
        return result._replace(output=result.output[..., :dim])

    return call
