"""Recording never makes the host wait for the device while a run is under way."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from memattn.recording import record
from memattn.records import FIELDS
from tests import pipelines

READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero")
RECORDED = {
    "layout": "unconditional+conditional",
    "prompt_lengths": [5],
    "heads": True,
    "entropy_per_token": True,
}


class NoReads(TorchDispatchMode):
    """Fails on every operation that hands a device's value to the host."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        assert function.name().split(".")[0] not in READS, f"got {function.name()}"
        return function(*args, **(kwargs or {}))


def run_without(mode, fields, device="cpu"):
    unet = pipelines.tiny_unet().to(device)
    mask = torch.zeros(2, 64, 16, device=device)
    layer = unet.get_submodule("down_blocks.0.attentions.0.transformer_blocks.0.attn2")
    layer.register_forward_pre_hook(
        lambda _, args, kwargs: (args, {**kwargs, "attention_mask": mask}), with_kwargs=True
    )
    inputs = torch.randn(2, 4, 8, 8, device=device), torch.tensor(7, device=device)
    text = torch.randn(2, 16, 16, device=device)
    with torch.no_grad(), record(unet, fields=fields, **RECORDED) as recorded:
        unet(*inputs, text)  # the first call may allocate and copy what the host knows
        with mode:
            for _ in range(3):
                unet(*inputs, text)
    assert recorded.calls == 4


def test_recording_reads_no_value_from_the_device():
    # no token maps: on the CPU, where that waits for nothing, the op reads which token they are of
    run_without(NoReads(), ("token_mass", "entropy", "gap_squared"))


class SyncIsAnError:
    """CUDA's own watch for synchronisation."""

    def __enter__(self):
        torch.cuda.set_sync_debug_mode("error")

    def __exit__(self, *_):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_recording_does_not_synchronise_the_gpu():
    run_without(SyncIsAnError(), FIELDS, "cuda")
