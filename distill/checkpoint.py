"""The run folder: claimed by one process, checkpoints written whole or not at all, tensors as safetensors."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor, nn

from .recipe import Recipe, dump


class RunFault(RuntimeError):
    """A run that cannot start, go on or be kept: says which folder, why, and what to do."""


class Claim:
    """One process's hold on a run folder; the system releases it when the process ends, however it ends."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open(folder / "run.lock", "a+")  # noqa: SIM115 (held as long as the run)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "unknown"
            self._file.close()
            raise RunFault(
                f"output folder {folder} is in use by process {holder}: wait for it, or give another output=FOLDER"
            ) from None
        self._file.truncate(0)
        self._file.write(str(os.getpid()))
        self._file.flush()

    def release(self) -> None:
        """Give the folder free."""
        self._file.close()


def same_recipe(folder: Path, recipe: Recipe) -> None:
    """A `RunFault` if the folder holds a run of another recipe; where it holds none, the recipe is written
    there.
    """
    path = folder / "recipe.yaml"
    if not path.exists():
        others = [p.name for p in folder.iterdir() if p.name != "run.lock"]
        if others:
            raise RunFault(
                f"output folder {folder} holds files that are no run of ours "
                f"({', '.join(sorted(others)[:3])}): give another output=FOLDER"
            )
        write(path, dump(recipe).encode())
        return
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    now = yaml.safe_load(dump(recipe))
    changed = [
        f"{k}: {before.get(k)} there, {now.get(k)} now" for k in {**before, **now} if before.get(k) != now.get(k)
    ]
    if changed:
        raise RunFault(
            f"output folder {folder} holds a run of another recipe ({'; '.join(changed[:4])}): "
            "give another output=FOLDER, or delete the folder"
        )


def write(path: Path, data: bytes) -> None:
    """Write a file whole: beside it first, on the disk, then renamed."""
    beside = path.with_name(path.name + ".tmp")
    with open(beside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def replace_folder(final: Path, fill: Callable[[Path], None], what: str) -> None:
    """Fill a folder beside ``final``, then swap it in; `recover` mends a swap that was cut short.

    A full disk (or any other failure to write) leaves ``final`` as it was and is a `RunFault` that says so.
    """
    beside, old = final.with_name(final.name + ".tmp"), final.with_name(final.name + ".old")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir()
        fill(beside)
        for file in beside.rglob("*"):
            if file.is_file():
                with open(file, "rb") as handle:
                    os.fsync(handle.fileno())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        kept = f"the earlier one in {final} is intact" if final.exists() else "there is no earlier one"
        raise RunFault(
            f"{what} could not be written to {final} ({error}); {kept}. "
            "Make room on the disk and give the same command again"
        ) from error
    if final.exists():
        final.rename(old)
    beside.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def recover(final: Path) -> None:
    """After a kill in the middle of a swap: bring the earlier folder back, and clear what is half written."""
    old = final.with_name(final.name + ".old")
    if old.exists() and not final.exists():
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(final.with_name(final.name + ".tmp"), ignore_errors=True)


def save(folder: Path, student: nn.Module, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Write the trained tensors, the optimiser and the position of a run (JSON) into a folder."""
    optimised = optimizer.state_dict()
    moments = {f"{i}.{k}": v for i, s in optimised["state"].items() for k, v in s.items()}
    (folder / "model.safetensors").write_bytes(bytes_of(_own(trained_state(student))))
    (folder / "optimizer.safetensors").write_bytes(bytes_of(_own(moments)))
    (folder / "state.json").write_text(json.dumps(dict(state), indent=1))


def load(folder: Path, student: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put back what `save` wrote; gives the run's position. A `RunFault` if the tensors are those of another
    student.
    """
    try:
        weights = tensors_of((folder / "model.safetensors").read_bytes())
        moments = tensors_of((folder / "optimizer.safetensors").read_bytes())
        state = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise RunFault(f"checkpoint {folder} cannot be read ({error}): delete it to start again") from None
    if weights.keys() != trained_state(student).keys():
        raise RunFault(f"checkpoint {folder} is that of another student: delete it to start again")
    student.load_state_dict(weights, strict=False)
    by_parameter: dict[int, dict[str, Tensor]] = {}
    for name, tensor in moments.items():
        index, _, key = name.partition(".")
        by_parameter.setdefault(int(index), {})[key] = tensor
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": by_parameter, "param_groups": groups})
    return dict(state)


def trained_state(student: nn.Module) -> dict[str, Tensor]:
    """What training changes: the trainable parameters and the buffers. Frozen weights come from the
    backbone.
    """
    frozen = {name for name, p in student.named_parameters() if not p.requires_grad}
    return {name: tensor for name, tensor in student.state_dict().items() if name not in frozen}


def save_random(path: Path) -> None:
    """Write the states of Python's, numpy's and torch's random generators of this process."""
    _, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = cast(tuple[Any, ...], np.random.get_state())
    tensors = {
        "torch": torch.get_rng_state(),
        "python": torch.tensor(words, dtype=torch.int64),
        "python_gauss": torch.tensor([] if gauss is None else [gauss], dtype=torch.float64),
        "numpy": torch.tensor(keys.astype(np.int64)),
        "numpy_rest": torch.tensor([position, has_gauss, cached], dtype=torch.float64),
    }
    if torch.cuda.is_available():
        tensors |= {f"cuda.{i}": s for i, s in enumerate(torch.cuda.get_rng_state_all())}
    path.write_bytes(bytes_of(tensors))


def load_random(path: Path) -> None:
    """Put back what `save_random` wrote."""
    tensors = tensors_of(path.read_bytes())
    torch.set_rng_state(tensors["torch"])
    gauss = tensors["python_gauss"].tolist()
    random.setstate((3, tuple(tensors["python"].tolist()), gauss[0] if gauss else None))
    position, has_gauss, cached = tensors["numpy_rest"].tolist()
    np.random.set_state(("MT19937", tensors["numpy"].numpy().astype(np.uint32), int(position), int(has_gauss), cached))
    cuda = [tensors[f"cuda.{i}"] for i in range(sum(k.startswith("cuda.") for k in tensors))]
    if cuda and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(cuda)


def _own(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, none sharing memory with another (safetensors refuses tied tensors)."""
    return {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
