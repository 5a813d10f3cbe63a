"""Training examples a second of systems that see, with pictures' features from the disk and computed at every step.

The second is the usual way: the frozen image encoder runs inside the training loop. Both are the same student on the
same batches (photos of grocery linking, one sentence), MiniLM with LoRA and EfficientNet-Lite0, one thread, processor
time; a ratio of medians of rounds that take turns. Memory is the peak of a process that learns one way.

python benchmarks/fusion.py [SYSTEM ...]     hvpnet, mkgformer and umgf if left out
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from magister import students
from magister.distill.features import FeatureStore
from magister.students.student import View
from magister.tasks.readers import read

BATCH, ROUNDS = 16, 7
SEES = View(images=True)


def step(student: Any, optimizer: torch.optim.Optimizer, examples: Sequence[Any]) -> None:
    """One training step in bf16."""
    with torch.autocast("cpu", torch.bfloat16):
        loss = student(student.collate(examples, SEES)).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def timed(work: Callable[..., object], *arguments: object) -> float:
    start = time.process_time()  # on one thread, another job on the machine does not count
    work(*arguments)
    return time.process_time() - start


def learner(name: str) -> tuple[Any, torch.optim.Optimizer, list[list[Any]]]:
    """A new student in training, its optimiser, and batches for it."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    data, kind = read("image_decides_ner"), students.find(name)
    examples = list(data.split("train")[: BATCH * (ROUNDS + 1)])
    student = kind.create(kind.Config(image_encoder="efficientnet-lite0", view=SEES), {"ner": data.schema}).train()
    batches = [examples[i : i + BATCH] for i in range(0, len(examples), BATCH)]
    return student, torch.optim.AdamW(student.parameter_groups(1e-3, 1e-3)), batches


def speed(name: str, folder: Path) -> str:
    """Both ways in turn."""
    student, optimizer, batches = learner(name)
    computed, stored = student.features, FeatureStore(folder, student.image_encoder)
    pictures = [e.images[0] for batch in batches for e in batch]
    first = timed(stored.fill, pictures)
    took: dict[str, list[float]] = {"stored": [], "computed": []}
    for batch in batches:
        for way, student.features in (("stored", stored), ("computed", computed)):
            took[way].append(timed(step, student, optimizer, batch))
    kept, anew = (BATCH / statistics.median(times[1:]) for times in took.values())
    return (
        f"{kept:.1f} examples/s with stored features, {anew:.1f} computed at each step ({kept / anew:.1f} times); "
        f"encoding once {len(pictures) / first:.1f} pictures/s"
    )


def memory(name: str, way: str, folder: Path) -> None:
    """Print the most memory, in MiB, that a process needs for a few steps of one way."""
    student, optimizer, batches = learner(name)
    if way == "stored":
        student.features = FeatureStore(folder, student.image_encoder)
    for batch in batches[:3]:
        step(student, optimizer, batch)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    if sys.argv[1:2] == ["--memory"]:
        return memory(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    for name in sys.argv[1:] or ("hvpnet", "mkgformer", "umgf"):
        with tempfile.TemporaryDirectory() as folder:
            said = speed(name, Path(folder))
            held = []
            for way in ("stored", "computed"):
                command = [sys.executable, __file__, "--memory", name, way, folder]
                found = subprocess.run(command, capture_output=True, text=True, check=True)
                held.append(f"{found.stdout.split()[-1]} MiB {way}")
            print(f"{name}: {said}; peak memory {', '.join(held)}", flush=True)
    return None


if __name__ == "__main__":
    main()
