"""Try tiles in Triton's interpreter. A program, because Triton reads TRITON_INTERPRET at import."""

import torch

from memattn.benchmarks.cases import Case
from memattn.benchmarks.shapes import Shape
from memattn.benchmarks.tuning import why_not
from memattn.benchmarks.tuning_kernels import Group, problem, with_tiles
from memattn.kernels.triton.tiles import Tiles

CROSS = Shape("small", "none", 2, 1, queries=70, keys=9, dim=16, layers=1)
JOINT = Shape("joint", "none", 1, 2, queries=70, keys=70, dim=16, layers=1, text=20)
TRIED = {
    "forward": (CROSS, [Tiles(32, 0, 2, 4, 1), Tiles(16, 16, 1, 4, 1)]),
    "backward": (CROSS, [Tiles(32, 16, 2, 4, 1)]),
    "columns": (JOINT, [Tiles(32, 16, 2, 4, 1)]),
}
NO_TILES = Tiles(24, 16, 1, 4, 1)  # 24 is no power of two

torch.manual_seed(0)
for kernel, (shape, tried) in TRIED.items():
    case = Case(shape, "fp16", "cpu")
    group = Group(kernel, shape.text or shape.keys, shape.dim, "fp16")
    for tiles in tried:
        reason = why_not(group, case, tiles)
        assert not reason, (kernel, tiles, reason)
        with torch.inference_mode():
            task = problem(kernel, case, judged=True)
            with with_tiles(kernel, tiles):
                result = task.call(*task.inputs)
            task.check(result)
            for place, tensor in enumerate(result):
                if tensor is None:
                    continue
                wrong = [*result]
                wrong[place] = tensor + 0.01 * tensor.abs().max()
                try:
                    task.check(tuple(wrong))
                except AssertionError:
                    continue
                raise SystemExit(f"{kernel}: a wrong result {place} was taken")
    assert "power of 2" in why_not(group, case, NO_TILES), why_not(group, case, NO_TILES)
    assert why_not(group, case, tried[0]) == ""
print("tried")
