"""The feature store gives what the encoder gives, once, and survives kills and broken pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from magister.distill.features import FeatureStore
from magister.tasks.images import Image, ImageFault
from PIL import Image as Pillow


class Encoder:
    """Two depths of numbers made of a picture's mean colour; counts the pictures it saw."""

    def __init__(self, identity: str = "tiny") -> None:
        self.name, self.seen = identity, 0

    def identity(self) -> str:
        return self.name

    def encode(self, images: Sequence[Image]) -> list[torch.Tensor]:
        self.seen += len(images)
        means = torch.tensor(np.array([np.asarray(i.open()).mean((0, 1)) for i in images])).float()
        return [means[:, None].repeat(1, 4, 1), means[:, None, :2] / 2]


def picture(folder: Path, number: int, colour: tuple[int, int, int]) -> Image:
    path = folder / f"{number}.png"
    Pillow.new("RGB", (4, 4), colour).save(path)
    return Image(source=str(path), example=f"e{number}")


@pytest.fixture
def pictures(tmp_path: Path) -> list[Image]:
    return [picture(tmp_path, i, (i, 2 * i, 3 * i)) for i in range(7)]


def test_what_is_stored_is_what_the_encoder_says(tmp_path: Path, pictures: list[Image]) -> None:
    encoder = Encoder()
    store = FeatureStore(tmp_path / "store", encoder)
    first = store([pictures[4], pictures[1], pictures[4]])
    assert encoder.seen == 2
    assert [t.shape for t in first] == [(3, 4, 3), (3, 1, 2)]
    assert first[0].dtype == torch.float32
    order = [6, 4, 0, 1]
    for one, expected in zip(
        store([pictures[i] for i in order]), encoder.encode([pictures[i] for i in order]), strict=True
    ):
        assert torch.equal(one, expected)
    again = FeatureStore(tmp_path / "store", Encoder())
    assert len(again) == 4
    assert torch.equal(again([pictures[6]])[0], encoder.encode([pictures[6]])[0])
    assert again._encoder.seen == 0, "read from the disk"
    assert len(FeatureStore(tmp_path / "store", Encoder("another"))) == 0, "each encoder has its own"


def test_fill_counts_all_and_goes_on(tmp_path: Path, pictures: list[Image]) -> None:
    same = tmp_path / "same.png"
    same.write_bytes(Path(pictures[0].source).read_bytes())
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG no more")
    more = [Image(source=str(same)), Image(source=str(broken)), Image(source=str(tmp_path / "gone.png"))]
    encoder = Encoder()
    store = FeatureStore(tmp_path / "store", encoder)
    assert store.fill([*pictures, *more], batch_size=3) == {"kept": 1, "new": 7, "broken": 2}
    assert store.fill([*pictures, *more], batch_size=3) == {"kept": 8, "new": 0, "broken": 2}
    with pytest.raises(ImageFault, match=r"broken.png"):
        store([more[1]])


def test_what_a_kill_left_half_written_is_written_over(tmp_path: Path, pictures: list[Image]) -> None:
    store = FeatureStore(tmp_path / "store", Encoder())
    store.fill(pictures[:3])
    with open(store.folder / "index.jsonl", "ab") as index, open(store.folder / "depth-0.bin", "ab") as data:
        index.write(b'{"sha256": "ab')
        data.write(b"rubbish of another length")
    mended = FeatureStore(tmp_path / "store", Encoder())
    assert len(mended) == 3
    assert mended.fill(pictures)["new"] == 4
    last = FeatureStore(tmp_path / "store", Encoder())
    for one, expected in zip(last(pictures), Encoder().encode(pictures), strict=True):
        assert torch.equal(one, expected)


def test_two_writers_do_not_hurt_each_other(tmp_path: Path, pictures: list[Image]) -> None:
    one, two = (FeatureStore(tmp_path / "store", Encoder()) for _ in range(2))
    one.fill(pictures[:4])
    two.fill(pictures[2:])
    one.fill(pictures)
    for store in (one, two, FeatureStore(tmp_path / "store", Encoder())):
        assert len(store) == 7
        assert torch.equal(store(pictures)[0], Encoder().encode(pictures)[0])


def test_numbers_too_large_for_the_store_are_refused(tmp_path: Path, pictures: list[Image]) -> None:
    encoder = Encoder()
    encoder.encode = lambda images: [torch.full((len(images), 1, 1), 1e6)]  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="65,504"):
        FeatureStore(tmp_path / "store", encoder)(pictures)


def test_a_data_url_is_stored_by_its_content(tmp_path: Path, pictures: list[Image]) -> None:
    data = io.BytesIO()
    Pillow.open(pictures[3].source).save(data, "PNG")
    store = FeatureStore(tmp_path / "store", Encoder())
    store.fill([pictures[3]])
    assert store.fill([Image.of_bytes(data.getvalue())]) == {"kept": 1, "new": 0, "broken": 0}
