"""Which calls the CUDA kernels take, on GPUs that are not here."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from memattn.kernels.cuda.limits import DIMS, MOST_KEYS, shared_bytes, why_not_call
from tests.compilers import needs_compiler
from tests.kernels import cuda_on_cpu

ROOT = Path(__file__).parents[2]
# CUDA's programming guide, table of technical specifications: bytes of shared memory of a block.
SHARED = {(8, 0): 163 * 1024, (8, 9): 99 * 1024, (9, 0): 227 * 1024, (12, 0): 99 * 1024}

pytestmark = pytest.mark.skipif(torch.version.hip is not None, reason="this torch is AMD's")


@pytest.fixture
def refusal(monkeypatch):
    """Why a call is refused on a GPU of some compute capability, or None."""

    def why(capability, dim=64, keys=77, dtype=torch.float16, statistics=True):
        major, minor = capability
        shared = SHARED.get(capability, 64 * 1024)
        gpu = SimpleNamespace(
            major=major, minor=minor, name="some GPU", shared_memory_per_block_optin=shared
        )
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: gpu)
        with FakeTensorMode():
            query = torch.empty(1, 1, 1, dim, device="cuda", dtype=dtype)
            return why_not_call(query, keys, statistics=statistics)

    return why


@pytest.mark.parametrize("capability", SHARED, ids=str)
@pytest.mark.parametrize("dim", DIMS)
def test_every_gpu_takes_77_keys(refusal, capability, dim):
    assert refusal(capability, dim) is None


def test_refusals_say_what_was_got_and_what_is_taken(refusal):
    assert why_not_call(torch.zeros(1, 1, 1, 64), 77, statistics=True) == (
        "it takes tensors on cuda, got cpu"
    )
    dims = "40, 64, 72, 80, 96, 112, 128, 160"
    for sentence, arguments in {
        "it takes torch.float16 and torch.bfloat16, got torch.float32": {"dtype": torch.float32},
        f"it takes head dimensions of {dims}, got 48": {"dim": 48},
        "it takes up to 320 keys, got 321": {"keys": 321},
    }.items():
        assert refusal((9, 0), **arguments) == sentence
    assert refusal((7, 5)) == "it takes compute capability 8.0 or more, got 7.5 (some GPU)"


@pytest.mark.parametrize(
    ("model", "dim", "keys", "capabilities"),
    [
        ("SD 1 with three prompts", 40, 231, [(8, 0), (8, 9), (9, 0), (12, 0)]),
        ("SDXL with three prompts", 64, 231, [(8, 0), (9, 0)]),
        ("PixArt-Alpha", 72, 120, [(8, 0), (8, 9), (9, 0), (12, 0)]),
        ("PixArt-Sigma", 72, 300, [(8, 0), (9, 0)]),
        ("Sana", 112, 300, [(9, 0)]),
    ],
)
def test_keys_of_models_fit_the_gpus_that_they_can(refusal, model, dim, keys, capabilities):
    assert [each for each in SHARED if refusal(each, dim, keys) is None] == capabilities


def test_what_does_not_fit_is_refused(refusal):
    assert refusal((8, 9), dim=160, keys=120) == (
        "it takes 133632 bytes of shared memory for this call, got 101376 (some GPU)"
    )


@needs_compiler
@pytest.mark.parametrize("statistics", [False, True])
def test_shared_memory_is_what_the_kernels_share_out(statistics):
    for dim in DIMS:
        for keys in range(1, MOST_KEYS + 1):
            planned = cuda_on_cpu.library().shared_memory(dim, keys, statistics)
            assert shared_bytes(dim, keys, statistics) == planned


def test_every_dimension_has_its_kernels():
    files = (ROOT / "csrc" / "cuda").glob("attend_*.cu")
    assert {int(file.stem.split("_")[-1]) for file in files} == set(DIMS)
