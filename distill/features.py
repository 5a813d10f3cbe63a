"""A frozen image encoder runs once over each picture; what it said is read from the disk ever after."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..models.gemma import cache_folder
from ..tasks.images import Image, ImageFault


class FeatureStore:
    """Features by the encoder's identity and the picture's hash; stands in for ``student.features``.

    One folder an encoder: ``index.jsonl`` (the hash of each row, in order) and ``depth-0.bin``,
    ``depth-1.bin``, ... (half precision, ``[rows, cells, channels]``, memory-mapped). A row is in the index
    only when its data are on the disk, so a kill loses at most the rows of one batch, and whatever lies
    behind the index is written over.

    Args:
        folder: where the stores of all encoders lie.
        encoder: an `ImageEncoder`: ``encode(images)`` gives a list of ``[B, cells, channels]``,
            ``identity()`` says what decides its numbers.
    """

    def __init__(self, folder: str | Path, encoder: Any) -> None:
        self._encoder = encoder
        identity = str(encoder.identity())
        self.folder = Path(folder) / hashlib.sha256(identity.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "encoder.txt").write_text(identity + "\n")
        self._hashes: dict[str, str] = {}
        self._rows: dict[str, int] = {}
        self._shapes: list[tuple[int, ...]] = []
        self._maps: list[np.memmap] = []
        self._read = 0
        self._refresh()

    def __len__(self) -> int:
        return len(self._rows)

    def __call__(self, images: Sequence[Image]) -> list[Tensor]:
        """Features of some pictures, a tensor ``[B, cells, channels]`` in fp32 for each depth.

        A picture that is not there yet is encoded and kept. An `ImageFault` for one that is broken.
        """
        hashes = [self._hash(image) for image in images]
        new = {h: image for h, image in zip(hashes, images, strict=True) if h not in self._rows}
        if new:
            self._add(new)
        rows = [self._rows[h] for h in hashes]
        return [torch.from_numpy(np.asarray(m[rows], dtype=np.float32)) for m in self._maps]

    def fill(
        self, images: Sequence[Image], batch_size: int = 32, said: Callable[[int, int], None] | None = None
    ) -> dict[str, int]:
        """Encode all that is not there yet; what was done, with broken pictures counted: in = kept + new +
        broken.

        Pictures of the same content are one. ``said`` is told ``(done, total)`` after each batch.
        """
        counts = {"kept": 0, "new": 0, "broken": 0}
        todo: dict[str, Image] = {}
        seen: set[str] = set()
        for image in images:
            try:
                known = self._hash(image)
            except ImageFault:
                counts["broken"] += 1
                continue
            if known in self._rows or known in seen:
                counts["kept"] += 1
            else:
                todo[known] = image
            seen.add(known)
        waiting = list(todo.items())
        for start in range(0, len(waiting), batch_size):
            part = dict(waiting[start : start + batch_size])
            try:
                self._add(part)
                counts["new"] += len(part)
            except ImageFault:
                for known, image in part.items():
                    try:
                        self._add({known: image})
                        counts["new"] += 1
                    except ImageFault:
                        counts["broken"] += 1
            if said:
                said(min(start + batch_size, len(waiting)), len(waiting))
        return counts

    def _hash(self, image: Image) -> str:
        if image.source not in self._hashes:
            self._hashes[image.source] = image.sha256()
        return self._hashes[image.source]

    @torch.no_grad()
    def _add(self, images: dict[str, Image]) -> None:
        with np.errstate(over="ignore"):
            encoded = [t.cpu().float().numpy().astype(np.float16) for t in self._encoder.encode(list(images.values()))]
        if not all(np.isfinite(depth).all() for depth in encoded):
            raise ValueError(
                f"the image encoder {self._encoder.identity()} gives numbers that are none, or over 65,504"
            )
        with self._writing():
            self._refresh(mend=True)
            new = [i for i, known in enumerate(images) if known not in self._rows]
            shapes = [depth.shape[1:] for depth in encoded]
            for number, depth in enumerate(encoded):
                _write_at(self._data(number), len(self._rows) * depth[0].nbytes, depth[new].tobytes())
            lines = [json.dumps({"sha256": list(images)[i], "shapes": shapes}) + "\n" for i in new]
            _write_at(self._index, self._read, "".join(lines).encode())
            self._refresh()

    def _refresh(self, mend: bool = False) -> None:
        """Read what the index has gained and map the data. ``mend`` (writers only): cut off a line cut short
        by a kill.
        """
        if not self._index.exists():
            return
        with open(self._index, "rb") as file:
            file.seek(self._read)
            gained = file.read()
        whole = gained[: gained.rfind(b"\n") + 1]
        if mend and len(whole) < len(gained):
            os.truncate(self._index, self._read + len(whole))
        self._read += len(whole)
        for line in whole.splitlines():
            entry = json.loads(line)
            self._rows[entry["sha256"]] = len(self._rows)
            self._shapes = [tuple(shape) for shape in entry["shapes"]]
        if whole:
            self._maps = [
                np.memmap(self._data(i), dtype=np.float16, mode="r", shape=(len(self._rows), *shape))
                for i, shape in enumerate(self._shapes)
            ]

    @property
    def _index(self) -> Path:
        return self.folder / "index.jsonl"

    def _data(self, depth: int) -> Path:
        return self.folder / f"depth-{depth}.bin"

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """One writer at a time."""
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def attach(
    student: Any, images: Sequence[Image] = (), said: Callable[[int, int], None] | None = None
) -> dict[str, int]:
    """Let a student that sees read its pictures' features from the user's cache; encode new ``images``.

    Returns what `FeatureStore.fill` counts. A student without an image encoder is left alone, and one to which captions
    stand for pictures: it remembers what it read.
    """
    if student.config.image_encoder is None or student.reads_captions:
        return {}
    student.features = store = FeatureStore(cache_folder() / "features", student.image_encoder)
    return store.fill(images, said=said)


def _write_at(path: Path, offset: int, data: bytes) -> None:
    """Write at a place of a file, and wait until it is on the disk."""
    with open(path, "r+b" if path.exists() else "wb") as file:
        file.seek(offset)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
