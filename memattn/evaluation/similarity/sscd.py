"""SSCD: similarity by a network that was trained to detect copies, from a local file."""

import hashlib
import io
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from memattn.errors import InputError
from memattn.evaluation.similarity.resizing import resize

_SIZE = 320  # pixels along each side
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in 0..1
_BATCH = 16


@dataclass(frozen=True, eq=False)
class SscdFile:
    """A checkpoint of SSCD, read but not run: what to check before `Sscd` loads it.

    Attributes:
        path: Where it was read.
        content: Its bytes.
    """

    path: Path
    content: bytes = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a checkpoint.

        Args:
            path: The TorchScript file.

        Returns:
            Its bytes, none of which was run.

        Raises:
            InputError: If the file cannot be read.
        """
        try:
            return cls(path, path.read_bytes())
        except OSError as error:
            raise InputError(f"{path} cannot be read: {error.strerror}") from error

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the bytes that `Sscd` loads."""
        return hashlib.sha256(self.content).hexdigest()

    @property
    def notice(self) -> str:
        """What a user has to know before the file is loaded, in two sentences."""
        return (
            f"{self.path} has SHA-256 {self.sha256}: compare it with its publisher's. "
            "A TorchScript file is a program that runs with your rights: load only files you trust."
        )


class Sscd:
    """Inner product of SSCD's descriptors of two pictures, 1 for the same picture.

    The published checkpoints are TorchScript files (`sscd_disc_mixup.torchscript.pt` and others); a
    file is read, never downloaded. **Loading one runs it**: a TorchScript file holds a program, not
    only weights, and what it does happens in this process with this user's rights. Load only files
    you trust: show `SscdFile.notice` first, and compare its SHA-256 with the publisher's.

        >>> file = SscdFile.read(path)
        >>> print(file.notice)
        >>> measure = Sscd(file)

    Pictures are resized to 320x320 whatever their aspect ratio and normalised with ImageNet's mean
    and deviation: one of the two preprocessings that SSCD's README recommends (the other resizes
    the small edge to 288 and keeps the aspect ratio, so that pictures cannot share a batch). Papers
    on memorization differ (Wen et al. crop to 224 and normalise with 0.5; AMG, CVPR 2024, does not
    normalise), and so do the checkpoints they use: their thresholds (0.5 for memorized, 0.7 for
    verbatim) carry over only roughly.

    Args:
        file: The checkpoint.

    Raises:
        InputError: If it is no TorchScript file, or does not turn pictures [n, 3, 320, 320] into
            descriptors [n, width].

    Source:
        Pizzi et al. 2022, "A self-supervised descriptor for image copy detection",
        arXiv:2202.10261; preprocessing: facebookresearch/sscd-copy-detection, README.md.
    """

    name: ClassVar[str] = "SSCD"

    def __init__(self, file: SscdFile) -> None:
        self._path = file.path
        self._module = _load(file)
        grey = np.full((2, _SIZE, _SIZE, 3), 127, np.uint8)
        self._describe(grey)  # a file that does not fit is refused before pictures are sampled

    def similarities(
        self, images: Sequence[NDArray[np.uint8]], references: Sequence[NDArray[np.uint8]]
    ) -> NDArray[np.float64]:
        """Inner products of descriptors; see `Measure.similarities`."""
        return self.descriptors(images) @ self.descriptors(references).T

    def descriptors(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float64]:
        """Descriptors of length one.

        Args:
            images: Pictures [height, width, 3], uint8, of any sizes.

        Returns:
            Descriptors [images, width].

        Raises:
            ValueError: If there are no pictures, or one is not uint8 [height, width, 3].
            InputError: If the network gives no finite descriptors.
        """
        starts = range(0, len(images), _BATCH) or (0,)
        parts = (resize(images[start : start + _BATCH], _SIZE) for start in starts)
        found = [self._describe(part) for part in tqdm(parts, self.name, total=len(starts))]
        return np.concatenate(found)

    @torch.no_grad()
    def _describe(self, images: NDArray[np.uint8]) -> NDArray[np.float64]:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 255
        pixels = (pixels - _channels(_MEAN)) / _channels(_STD)
        try:
            found = self._module(pixels)
        except RuntimeError as error:
            raise InputError(
                f"{self._path} cannot read pictures {list(pixels.shape)}: {_reason(error)}"
            ) from error
        if not isinstance(found, Tensor) or found.ndim != 2 or len(found) != len(pixels):
            got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise InputError(
                f"{self._path} gives {got} for {len(pixels)} pictures, expected descriptors "
                f"[{len(pixels)}, width]"
            )
        if not found.isfinite().all():
            raise InputError(f"{self._path} gives descriptors that are not finite")
        return F.normalize(found.double()).numpy()


def _load(file: SscdFile) -> torch.jit.ScriptModule:
    """The module in a TorchScript file."""
    with warnings.catch_warnings():
        # TorchScript is what SSCD is published in, whatever torch would rather have.
        warnings.filterwarnings("ignore", r"`torch\.jit\.load`", DeprecationWarning)
        try:
            module: torch.jit.ScriptModule = torch.jit.load(
                io.BytesIO(file.content), map_location="cpu"
            )
        except RuntimeError as error:
            raise InputError(
                f"{file.path} cannot be loaded as a TorchScript file, expected one as SSCD "
                f"publishes them (.torchscript.pt): {_reason(error)}"
            ) from error
    module.eval()
    return module


def _reason(error: RuntimeError) -> str:
    """The sentence of an error of torch that says what happened; its kind if it is empty.

    It begins the last line, below torch's stack; advice and guesses may follow it there.
    """
    last = (str(error).strip().splitlines() or [type(error).__name__])[-1]
    sentence = re.split(r"(?<=\w)\. ", last)[0]
    return f"{sentence.rstrip('.')}."


def _channels(values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values)[:, None, None]
