"""Pictures in words, on drawn pictures and on real photographs."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from magister.models.packaged import available
from magister.tasks.images import Image, ImageFault
from magister.teachers import describe as room
from magister.teachers.colours import PALETTE, cluster, dominant_colours, name, to_lab
from magister.teachers.describe import Describer, Description, Tag
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

DATA = Path(os.environ.get("MAGISTER_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_tagger = pytest.mark.skipif(not available("efficientnet-lite0"), reason="efficientnet-lite0's package is absent")


@pytest.fixture(scope="module")
def describer(tmp_path_factory):
    return Describer(kept=tmp_path_factory.mktemp("kept"))


def of(picture: Pillow.Image) -> Image:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Image.of_bytes(buffer.getvalue(), example="e1")


@needs_tagger
@pytest.mark.parametrize(
    ("photo", "tag", "colour"),
    [
        ("Green-Bell-Pepper", "bell pepper", "green"),
        ("Lemon", "lemon", "yellow"),
        ("Banana", "banana", "yellow"),
    ],
)
def test_real_photographs(describer, photo, tag, colour):
    path = DATA / "mae" / "grocery_store" / "iconic" / f"{photo}.jpg"
    if not path.is_file():
        pytest.skip("the grocery store photographs are not on this machine")
    found = describer.describe(Image(source=str(path)))
    assert found.tags[0].name.lower() == tag
    assert colour in found.colours


@needs_tagger
def test_text_in_the_picture_is_read(describer):
    picture = Pillow.new("RGB", (420, 160), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((20, 20), "ORGANIC COFFEE", fill="black", font=ImageFont.load_default(36))
    draw.text((20, 90), "500 g", fill="black", font=ImageFont.load_default(36))
    found = describer.describe(of(picture))
    assert [line.replace(" ", "") for line in found.ocr] == ["ORGANICCOFFEE", "500g"]
    assert "COFFEE" in found.text


@needs_tagger
def test_a_kept_description_is_read_back(describer, monkeypatch):
    image = of(Pillow.new("RGB", (40, 40), "red"))
    first = describer.describe(image)
    assert first.colours == ("red",)
    assert first.ocr == ()
    again = Describer(kept=describer.kept)
    monkeypatch.setattr(Image, "open", lambda self: pytest.fail("the picture was opened again"))
    assert again.describe(image) == first
    assert not [p for p in describer.kept.iterdir() if p.suffix != ".json"]


def test_broken_pictures_are_named(tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8 no picture")
    for kept in (None, tmp_path / "kept"):
        with pytest.raises(ImageFault, match=r"e5.*bad\.jpg"):
            Describer(kept).describe(Image(source=str(bad), example="e5"))
        with pytest.raises(ImageFault, match="no such file"):
            Describer(kept).describe(Image(source=str(tmp_path / "none.jpg")))


def test_the_text_says_what_is_missing():
    assert Description().text == "Objects: nothing recognised. Colours: none. Text in the picture: none."
    whole = Description(tags=(Tag(name="lemon", probability=0.91),), colours=("yellow",), ocr=("FRESH", "1 kg"))
    assert whole.text == 'Objects: lemon (91%). Colours: yellow. Text in the picture: "FRESH / 1 kg".'


def test_the_shared_describer_is_one():
    assert room._default() is room._default()


def test_lab_matches_published_values():
    # Primaries of sRGB in CIELAB (D65), as colour tables give them.
    rgb = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1], [0, 0, 0]], float)
    lab = [[53.24, 80.09, 67.20], [87.73, -86.18, 83.18], [32.30, 79.19, -107.86], [100, 0, 0], [0, 0, 0]]
    assert np.allclose(to_lab(rgb), lab, atol=0.05)


@pytest.mark.parametrize(
    ("rgb", "word"),
    [
        ((255, 0, 0), "red"),
        ((0, 0, 255), "blue"),
        ((0, 128, 0), "green"),
        ((255, 165, 0), "orange"),
        ((139, 69, 19), "brown"),
        ((255, 192, 203), "pink"),
        ((128, 0, 128), "purple"),
        ((0, 0, 100), "navy"),
        ((245, 222, 179), "beige"),
        ((128, 128, 128), "grey"),
    ],
)
def test_common_colours_have_their_common_names(rgb, word):
    assert name(to_lab(np.array([rgb]) / 255.0)[0]) == word


def test_every_shade_has_its_own_name():
    for word, shades in PALETTE.items():
        for shade in shades:
            assert name(to_lab(np.array([list(bytes.fromhex(shade))]) / 255.0)[0]) == word


def test_a_plain_background_does_not_count():
    picture = Pillow.new("RGB", (100, 100), "white")
    ImageDraw.Draw(picture).rectangle((30, 30, 70, 70), fill=(192, 24, 32))
    ImageDraw.Draw(picture).rectangle((30, 55, 70, 70), fill=(32, 80, 192))
    assert dominant_colours(picture) == ("red", "blue")
    assert dominant_colours(Pillow.new("RGB", (9, 9), "white")) == ("white",)


def test_clusters_share_all_pixels():
    pixels = np.random.default_rng(0).normal(size=(300, 3)) + np.repeat(np.eye(3) * 50, 100, axis=0)
    centres, shares = cluster(pixels, k=3)
    assert np.allclose(sorted(shares), [1 / 3] * 3)
    assert np.allclose(np.sort(centres.max(axis=1)), 50, atol=1)
