import resource
from contextlib import contextmanager

import pytest
import torch

from memattn.errors import InputError
from memattn.evaluation.store import Batch, Store, check_identity, holds_batches

BATCH = Batch(
    scores={"NoiseMagnitude": torch.rand(2)},
    unreadable={},
    masks={},
    images=torch.zeros(2, 64, 64, 3, dtype=torch.uint8),
    traces=None,
    attention=None,
    calls=2,
)


@contextmanager
def room_for_a_thousand_bytes():
    """Files of this process may be no longer: the system answers as if the disk were full.

    Not a fixture, since pytest writes its own report before fixtures are taken down.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_batch_without_room_is_named_in_one_sentence(tmp_path):
    folder = tmp_path / "unfinished"
    with pytest.raises(InputError) as error, room_for_a_thousand_bytes():
        Store(folder, {}).write(0, BATCH)
    assert str(error.value) == (
        f"cannot keep unfinished work in {folder}: File too large; the same command goes on after "
        "the last batch there once it can be written."
    )
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"cannot keep unfinished work in {tmp_path}/file/model"):
        Store(tmp_path / "file" / "model", {}).write(0, BATCH)


def test_other_work_is_found_by_its_headers(tmp_path):
    folder = tmp_path / "unfinished" / "model"
    asked = {"model": "a", "batch size": "8"}
    assert not holds_batches(folder)
    check_identity(folder, asked, root=folder.parent)
    Store(folder, {**asked, "detectors": "x"}).write(3, BATCH)
    assert holds_batches(folder)
    check_identity(folder, asked, root=folder.parent)
    with pytest.raises(InputError) as error:
        check_identity(folder, {"model": "b", "batch size": "4"}, root=folder.parent)
    assert str(error.value) == (
        f"got unfinished work in {folder.parent} of other model, batch size than asked for; start "
        "it the same way to finish it, or remove that folder to start anew."
    )
    (folder / "batch-00003.safetensors").write_bytes(b"damaged")  # named when it is read
    check_identity(folder, {"model": "b"}, root=folder.parent)
