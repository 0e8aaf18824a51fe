import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from memattn.benchmarks import tuning, tuning_kernels
from memattn.benchmarks.shapes import JOINT_SHAPES, SHAPES
from memattn.benchmarks.tuning import Failed, Timed, group_lines, groups, scores
from memattn.benchmarks.tuning_kernels import KERNELS, Group, candidates
from memattn.kernels.triton.tiles import Tiles, backward_tiles, column_tiles, forward_tiles

FAST, SLOW, BROKEN = (Tiles(64, 0, tiles, 4, 2) for tiles in (1, 2, 8))
GROUP = Group("forward", 77, 64, "bf16")
NOW = forward_tiles(77, 64, torch.bfloat16, biased=False, tensor_memory=False)
FOUND = [
    Timed("sdxl_64x64", FAST, 4.0, 5.0),
    Timed("sdxl_64x64", SLOW, 8.0, 5.0),
    Timed("sdxl_64x64", NOW, 8.0, 10.0),
    Failed("sdxl_64x64", BROKEN, "OutOfResources: shared memory"),
    Timed("sdxl_32x32", FAST, 2.0, 3.0),
    Timed("sdxl_32x32", SLOW, 2.0, 3.0),
]


def test_layers_that_are_launched_alike_are_tuned_together():
    found = groups("")
    names = [case.shape.name for case in found[GROUP]]
    assert names == [s.name for s in SHAPES if (s.keys, s.dim) == (77, 64)]
    assert len(names) == 6
    tuned = dict.fromkeys(KERNELS, 0)
    for group, cases in found.items():
        tuned[group.kernel] += len(cases)
    assert tuned == {
        "forward": len(SHAPES),
        "columns": len(JOINT_SHAPES),
        "backward": len(SHAPES),
    }
    assert {group.kernel for group in groups("columns")} == {"columns"}
    assert [c.name for cases in groups("sana").values() for c in cases] == ["sana-bf16"] * 2


@pytest.mark.parametrize("group", groups(""), ids=str)
@pytest.mark.parametrize("tensor_memory", [False, True])
def test_todays_tiles_are_tried_first_and_none_twice(group, tensor_memory, monkeypatch):
    monkeypatch.setattr(tuning_kernels, "_has_tensor_memory", lambda: tensor_memory)
    gpu = {"tensor_memory": tensor_memory}
    today = {
        "forward": forward_tiles(group.length, group.dim, torch.bfloat16, biased=False, **gpu),
        "backward": backward_tiles(group.dim, torch.bfloat16, **gpu),
        "columns": column_tiles(group.dim, torch.bfloat16, **gpu),
    }
    tried = candidates(group)
    assert tried[0] == KERNELS[group.kernel].now(group) == today[group.kernel]
    assert len(set(tried)) == len(tried) > 10
    # all keys as one tile, where that may be
    assert any(tiles.block_k == 0 for tiles in tried) == (
        group.kernel == "forward" and group.length <= 128
    )
    for tiles in tried:
        for length in (tiles.block_q, tiles.block_k or 16, tiles.warps):
            assert length & (length - 1) == 0


def test_a_score_is_by_the_best_of_each_layer_and_cache():
    # twice as slow in one of four places
    assert scores(FOUND) == pytest.approx({FAST: 1.0, SLOW: 2 ** (1 / 4)})


def test_a_groups_lines_have_the_best_todays_and_who_failed(monkeypatch):
    monkeypatch.setattr(tuning_kernels, "_has_tensor_memory", lambda: False)
    lines = group_lines(GROUP, FOUND).splitlines()
    assert lines[0].startswith("forward, 77 keys, D 64, bf16: by the best")
    assert lines[1] == "       1.00  block_q 64, block_k 0, tiles 1, warps 4, stages 2"
    assert "sdxl_64x64: 4.0, 5.0" in lines[2]
    (now,) = (line for line in lines if line.startswith("  now"))
    assert now.split()[1] == "-"  # it was not timed everywhere
    assert lines[-1].endswith("tiles 8, warps 4, stages 2: OutOfResources: shared memory")


def test_all_that_was_found_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(tuning, "facts", lambda device: {"device": "NVIDIA H200"})
    tuning._write({GROUP: FOUND}, tmp_path / "h200" / "tiles.json")
    written = json.loads((tmp_path / "h200" / "tiles.json").read_text())
    assert written["machine"] == {"device": "NVIDIA H200"}
    assert len(written["found"]) == len(FOUND)
    first, failed = written["found"][0], written["found"][3]
    assert first == {
        **GROUP._asdict(),
        "shape": "sdxl_64x64",
        "tiles": FAST._asdict(),
        "warm_us": 4.0,
        "cold_us": 5.0,
    }
    assert failed["reason"] == "OutOfResources: shared memory"


def test_without_a_gpu_it_is_one_sentence(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"^got no CUDA device, expected one: "):
        tuning.main([])


@pytest.mark.slow
def test_other_tiles_reach_every_kernel_and_every_result_is_judged():
    pytest.importorskip("triton")
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.tuned"],
        cwd=root,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("tried\n"), done.stdout + done.stderr
