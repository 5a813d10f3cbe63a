"""Finished runs as teachers: their posteriors over all that is trained on, computed once."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Tensor

from . import evaluate, objectives
from .checkpoint import RunFault
from .data import Data
from .progress import Reporter
from .recipe import Recipe


def posteriors(recipe: Recipe, sets: Data, folder: Path, accelerator: Accelerator, say: Reporter) -> dict[str, Tensor]:
    """Log posteriors ``[positions, labels]`` by example id, the mean over the runs named in ``teacher_run``.

    Kept in the run's folder. Several teachers that differ by their seed alone are less sure where they err
    than any one of them (Lakshminarayanan et al., NeurIPS 2017), and that is what a student can learn from.
    """
    path = folder / "teacher.safetensors"
    if accelerator.is_main_process and not path.exists():
        beside = path.with_suffix(".tmp")
        save_file(mean([_of_run(run, recipe, sets, accelerator, say) for run in recipe.teacher_run]), beside)
        os.replace(beside, path)
    accelerator.wait_for_everyone()
    return load_file(path)


def mean(found: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of some teachers' posteriors, all in logarithms."""
    first, *others = found
    if not others:
        return first
    return {
        key: torch.stack([one[key] for one in found]).logsumexp(0) - torch.tensor(len(found)).log() for key in first
    }


def _of_run(run: str, recipe: Recipe, sets: Data, accelerator: Accelerator, say: Reporter) -> dict[str, Tensor]:
    teacher, view = evaluate.load(run)
    if not set(view.context) - set(recipe.context):
        raise RunFault(f"teacher_run {run} does not read knowledge, or any other side text: its view is {view}")
    say.line(f"teacher: posteriors of {run}, computed once")
    teacher.to(accelerator.device)
    with accelerator.autocast():
        learned = [*sets.train, *sets.extra, *sets.augmented]
        return objectives.stored(teacher, learned, view, recipe.temperature, 32, recipe.kd_level)
