"""torchvision beside a CPU torch. Each import is tried in a process of its own: this one may be guarded."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from magister.models.torchvision_guard import nms


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-800:]
    return done.stdout.strip()


def test_timm_open_clip_and_peft_import_and_nms_runs():
    code = """
from magister.models.torchvision_guard import guard
first = guard(); assert guard() == first or not first
import timm, open_clip, peft, torch, torchvision
boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30.]])
print(torchvision.ops.nms(boxes, torch.tensor([.5, .9, .3]), .5).tolist())
"""
    assert run(code) == "[1, 2]"


def test_it_helps_after_a_failed_import_and_leaves_a_working_one_alone():
    code = """
try:
    import torchvision
    works = True
except (RuntimeError, ImportError):
    works = False
from magister.models.torchvision_guard import guard
assert guard() == (not works)
import torchvision.transforms.v2
"""
    run(code)


def test_it_does_nothing_where_torchvision_is_absent():
    code = """
import sys
sys.path_importer_cache.clear()
import importlib.util as u
import magister.models.torchvision_guard as g
g.find_spec = lambda name: None
assert g.guard() is False
assert "torch" not in sys.modules
"""
    run(code)


def slow_nms(boxes: list[list[float]], scores: list[float], threshold: float) -> list[int]:
    def iou(a: list[float], b: list[float]) -> float:
        shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
        return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)

    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.7, 1.0])
def test_nms_equals_a_slow_plain_version(seed, threshold):
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(30, 2, generator=generator), torch.rand(30, 2, generator=generator) + 0.01
    boxes, scores = torch.cat([corner, corner + size], 1).double(), torch.rand(30, generator=generator)
    assert nms(boxes, scores, threshold).tolist() == slow_nms(boxes.tolist(), scores.tolist(), threshold)


def test_nms_of_nothing_and_of_empty_boxes():
    assert nms(torch.zeros(0, 4), torch.zeros(0), 0.5).tolist() == []
    assert nms(torch.zeros(2, 4), torch.tensor([0.1, 0.2]), 0.5).tolist() == [1, 0]
