import hashlib
import io
import re
import warnings
import zipfile

import numpy as np
import pytest
import torch
from numpy.random import default_rng
from torch import Tensor, nn

from memattn.errors import InputError
from memattn.evaluation.similarity import Sscd, SscdFile, nearest, sscd

WIDTH = 512


class Descriptor(nn.Module):
    """What a published file does, small: pictures to descriptors, which need not be normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 5, stride=4)
        self.project = nn.Linear(8 * 4 * 4, WIDTH)

    def forward(self, pixels: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(self.convolution(pixels).relu(), 4)
        return 3 * self.project(pooled.flatten(1))


class Maps(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, :, :2, :2]


class OneForAll(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels.flatten(1).mean(dim=0, keepdim=True)


class Pair(nn.Module):
    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return pixels, pixels


class NotFinite(nn.Module):
    def forward(self, pixels: Tensor) -> Tensor:
        return pixels[:, 0, :2, 0] / 0


class OneChannel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 8, 5)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.convolution(pixels).flatten(1)


def save(module, file):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module.eval()).save(str(file))
    return file


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    torch.manual_seed(0)
    module = Descriptor()
    return save(module, tmp_path_factory.mktemp("sscd") / "tiny.torchscript.pt"), module


def pictures(count, height=40, width=50):
    return list(default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8))


def test_the_checksum_is_the_files(published):
    file, _ = published
    read = SscdFile.read(file)
    assert read.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert read.sha256 in read.notice
    assert "runs with your rights" in read.notice


def test_reading_a_file_runs_nothing_and_loading_takes_the_bytes_that_were_read(tmp_path):
    file = tmp_path / "changing.pt"
    file.write_bytes(b"no archive")
    read = SscdFile.read(file)
    save(Descriptor(), file)
    with pytest.raises(InputError, match="cannot be loaded as a TorchScript file"):
        Sscd(read)


def test_pictures_are_read_as_the_authors_recommend(published):
    """Of one colour, so that resizing plays no part: (colour - mean) / deviation, as ImageNet's."""
    file, module = published
    colour = np.array([10, 130, 250], np.uint8)
    normal = (colour / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    pixels = torch.tensor(normal, dtype=torch.float32)[None, :, None, None].expand(1, 3, 320, 320)
    with torch.no_grad():
        wanted = module(pixels)[0].double()
    found = Sscd(SscdFile.read(file)).descriptors([np.broadcast_to(colour, (40, 50, 3))])
    np.testing.assert_allclose(found[0], wanted / wanted.norm(), atol=1e-6)


def test_similarity_is_the_inner_product_of_unit_descriptors(published, monkeypatch):
    monkeypatch.setattr(sscd, "_BATCH", 2)  # three pictures fill no number of batches
    measure = Sscd(SscdFile.read(published[0]))
    images = pictures(3)
    descriptors = measure.descriptors(images)
    assert descriptors.shape == (3, WIDTH)
    np.testing.assert_allclose(np.linalg.norm(descriptors, axis=1), 1)
    found = measure.similarities(images, images[:2])
    np.testing.assert_allclose(found, descriptors @ descriptors[:2].T, atol=1e-6)
    indices, values = nearest(measure, images[1:], images)
    assert indices.tolist() == [1, 2]
    assert values == pytest.approx([1, 1])


def test_no_pictures_are_refused(published):
    with pytest.raises(ValueError, match="got no images, expected at least one"):
        Sscd(SscdFile.read(published[0])).similarities([], pictures(1))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.pt cannot be read: No such file"):
        SscdFile.read(tmp_path / "none.pt")


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        SscdFile.read(tmp_path)


def weights():
    """The same network as weights, which SSCD publishes as well (.torchvision.pt)."""
    stream = io.BytesIO()
    torch.save(Descriptor().state_dict(), stream)
    return stream.getvalue()


def archive():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as other:
        other.writestr("a.txt", "text")
    return stream.getvalue()


@pytest.mark.parametrize("content", [b"", b"no archive", archive(), weights()])
def test_another_file_is_refused(tmp_path, content):
    file = tmp_path / "other.pt"
    file.write_bytes(content)
    with pytest.raises(
        InputError, match=r"other\.pt cannot be loaded as .*publishes.*: .+"
    ) as error:
        Sscd(SscdFile.read(file))
    reason = str(error.value).partition("torchscript.pt): ")[2]
    assert reason.endswith(".")
    assert not re.search(r"\w\. ", reason)  # of several sentences of torch, the first


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Maps(), r"gives \[2, 3, 2, 2\] for 2 pictures, expected descriptors \[2, width\]"),
        (OneForAll(), r"gives \[1, 307200\] for 2 pictures"),
        (Pair(), "gives tuple for 2 pictures"),
        (NotFinite(), "gives descriptors that are not finite"),
        (OneChannel(), r"cannot read pictures \[2, 3, 320, 320\]: .*channels"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_module_that_gives_no_descriptors_is_refused_when_it_is_loaded(tmp_path, module, message):
    file = save(module, tmp_path / "other.pt")
    with pytest.raises(InputError, match=message):
        Sscd(SscdFile.read(file))
