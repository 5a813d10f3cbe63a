"""Parts of pictures: where their boxes lie, and that each is encoded as the picture it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import torch
from magister.models import packaged
from magister.models.torchvision_guard import guard
from magister.students.encoders.image import ImageEncoder
from magister.students.encoders.regions import WHOLE, Detector, RegionEncoder, even, salient
from magister.tasks.images import Image
from PIL import Image as Pillow

guard()

lite0 = pytest.mark.skipif(
    not packaged.available("efficientnet-lite0"), reason="the package of EfficientNet-Lite0 is not installed"
)


def quarters() -> Image:
    """Four colours, one a quarter."""
    made = Pillow.new("RGB", (200, 120))
    for x, y, colour in ((0, 0, "red"), (100, 0, "lime"), (0, 60, "blue"), (100, 60, "white")):
        made.paste(colour, (x, y, x + 100, y + 60))
    data = io.BytesIO()
    made.save(data, "PNG")
    return Image.of_bytes(data.getvalue(), example="quarters")


def test_an_even_grid_covers_the_picture() -> None:
    assert even(4) == [(0.0, 0.0, 0.5, 0.5), (0.5, 0.0, 1.0, 0.5), (0.0, 0.5, 0.5, 1.0), (0.5, 0.5, 1.0, 1.0)]
    assert len(even(3)) == 3
    assert even(1) == [WHOLE]


def test_salient_parts_lie_where_the_map_is_strong() -> None:
    """The strongest corner first, then the other one, once what the first holds is taken away."""
    strength = torch.zeros(6, 6)
    strength[0, 5] = 9.0
    strength[5, 0] = 5.0
    first, second, third = salient(strength, 3)
    assert (first[2], first[1]) == (1.0, 0.0)
    assert (second[0], second[3]) == (0.0, 1.0)
    for box in (first, second, third):
        assert 0 <= box[0] < box[2] <= 1
        assert 0 <= box[1] < box[3] <= 1
        assert box[2] - box[0] == pytest.approx(0.5)


@lite0
@pytest.mark.parametrize("proposals", ["grid", "salient"])
def test_each_part_is_encoded_as_a_picture_of_its_own(proposals: str) -> None:
    made = RegionEncoder("efficientnet-lite0", grid=2, depths=1, crops=4, proposals=proposals)
    plain = ImageEncoder("efficientnet-lite0", grid=2, depths=1)
    assert made.levels == [(20, 320), (5, 1280)]
    picture = quarters()
    found = made.encode([picture, picture])
    assert [tuple(level.shape) for level in found] == [(2, 20, 320), (2, 5, 1280)]
    whole = plain.encode([picture])
    torch.testing.assert_close(found[0][1, :4], whole[0][0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[1][1, :1], whole[1][0], rtol=1e-4, atol=1e-4)
    opened = picture.open()
    for part, (left, top, right, bottom) in enumerate(made.boxes(opened), 1):
        data = io.BytesIO()
        opened.crop((int(left * 200), int(top * 120), round(right * 200), round(bottom * 120))).save(data, "PNG")
        alone = plain.encode([Image.of_bytes(data.getvalue(), example="part")])
        torch.testing.assert_close(found[0][0, 4 * part : 4 * part + 4], alone[0][0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(found[1][0, part], alone[1][0, 0], rtol=1e-3, atol=1e-3)
    assert made.identity() != plain.identity()
    assert proposals in made.identity()


@pytest.fixture(scope="module")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import YolosConfig, YolosForObjectDetection, YolosImageProcessor

    torch.manual_seed(0)
    config = YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[32, 32],
        patch_size=16,
        num_detection_tokens=6,
        id2label={0: "cup", 1: "dog"},
        num_mid_position_embeddings=0,
    )
    folder = tmp_path_factory.mktemp("yolos")
    YolosForObjectDetection(config).save_pretrained(folder)
    YolosImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


@lite0
def test_a_detectors_boxes_and_the_whole_where_it_finds_too_few(tiny_detector: Path) -> None:
    detector = Detector(str(tiny_detector))
    opened = quarters().open()
    found = detector.objects(opened)
    sure = [probability for _, _, probability in found]
    assert sure == sorted(sure, reverse=True)
    assert {label for _, label, _ in found} <= {"cup", "dog"}
    made = RegionEncoder("efficientnet-lite0", grid=1, depths=1, crops=9, proposals=str(tiny_detector))
    boxes: list[Any] = made.boxes(opened)
    assert len(boxes) == 9
    assert boxes[len(detector.boxes(opened)) :] == [WHOLE] * (9 - len(detector.boxes(opened)))
    assert made.encode([quarters()])[0].shape == (1, 10, 320)
