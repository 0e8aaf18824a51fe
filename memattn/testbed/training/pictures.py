"""Renders scenes to pictures, on all cores, once."""

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from memattn.testbed.scenes import Scene, to_bytes
from memattn.whole import whole_file


def render_all(scenes: Sequence[Scene], file: Path) -> Tensor:
    """Renders scenes to [n, 3, 64, 64] uint8, or reads them where `file` holds them already."""
    if not file.exists():
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            pictures = pool.map(to_bytes, scenes, chunksize=64)
            stack = np.stack(list(tqdm(pictures, "render", total=len(scenes))))
        with whole_file(file) as fresh, fresh.open("wb") as stream:
            np.save(stream, stack)
    return torch.from_numpy(np.load(file)).permute(0, 3, 1, 2)
