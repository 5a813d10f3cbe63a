"""Pictures by reference: limits, and faults that name example and file."""

import base64
import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.tasks import images
from magister.tasks.images import Image, ImageFault
from PIL import Image as Pillow


def encoded(kind="PNG", size=(6, 4), **options):
    file = io.BytesIO()
    Pillow.effect_noise(size, 60).convert("RGB").save(file, kind, **options)
    return file.getvalue()


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded("JPEG"))
    return path


def refused(image, problem, *methods):
    for method in methods or ("read", "open", "sha256", "data_url"):
        with pytest.raises(ImageFault, match=problem) as caught:
            getattr(image, method)()
        assert caught.value.example == "post 7"
        assert "post 7" in str(caught.value)
        assert image.label in str(caught.value)


def test_missing_directory_and_endless_name(tmp_path):
    refused(Image(source=str(tmp_path / "none.jpg"), example="post 7"), "there is no such file")
    refused(Image(source=str(tmp_path), example="post 7"), "there is no such file")
    refused(Image(source=str(tmp_path / ("x" * 400)), example="post 7"), "too long|no such file")


def test_empty_and_broken_bytes(tmp_path, picture):
    empty, text, cut = tmp_path / "empty.jpg", tmp_path / "text.jpg", tmp_path / "cut.jpg"
    empty.write_bytes(b"")
    text.write_text("<html>not found</html>")
    cut.write_bytes(encoded("JPEG", (64, 64))[:-200])
    refused(Image(source=str(empty), example="post 7"), "the file is empty")
    refused(Image(source=str(text), example="post 7"), "not a picture that can be read", "open", "data_url")
    refused(Image(source=str(cut), example="post 7"), "broken picture: .*truncated", "open")


def test_limits(picture, monkeypatch):
    image = Image(source=str(picture), example="post 7")
    inline = Image.of_bytes(picture.read_bytes(), example="post 7")
    monkeypatch.setattr(images, "MAX_PIXELS", 23)
    for one in (image, inline):
        refused(one, "6 x 4 is over 23 pixels", "open")
    monkeypatch.setattr(images, "MAX_PIXELS", 24)
    assert image.open().size == (6, 4)
    monkeypatch.setattr(images, "MAX_BYTES", picture.stat().st_size - 1)
    for one in (image, inline):
        refused(one, "larger than")


def test_a_bomb_is_a_fault(tmp_path):
    path = tmp_path / "bomb.png"
    Pillow.new("1", (20000, 20000)).save(path)
    image = Image(source=str(path), example="post 7")
    refused(image, "pixels", "open")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("data:text/plain;base64,aGk=", "not a base64 data URL of an image"),
        ("data:image/png,abc", "not a base64 data URL of an image"),
        ("data:image/png;base64,%%%", "its base64 is broken"),
        ("data:image/png;base64,", "the file is empty"),
    ],
)
def test_broken_data_urls_are_named_without_their_data(source, problem):
    image = Image(source=source, example="post 7")
    assert image.label == "data URL"
    refused(image, problem)


def test_data_url_type_comes_from_the_content(tmp_path, picture):
    renamed = tmp_path / "b.png"
    renamed.write_bytes(picture.read_bytes())
    url = Image(source=str(renamed)).data_url()
    assert url.startswith("data:image/jpeg;base64,")
    assert base64.b64decode(url.partition(",")[2]) == picture.read_bytes()
    assert Image.of_bytes(picture.read_bytes()).source == url
    assert Image(source=url).data_url() == url
    refused(Image.of_bytes(b"no picture", example="post 7"), "not a picture that can be read", "open")


def test_exif_orientation_is_applied(tmp_path):
    upright = Pillow.new("RGB", (8, 2), "white")
    upright.putpixel((0, 0), (255, 0, 0))
    exif = Pillow.Exif()
    exif[0x0112] = 6  # the camera was held turned by 90 degrees
    upright.save(tmp_path / "turned.png", exif=exif)
    opened = Image(source=str(tmp_path / "turned.png")).open()
    assert opened.size == (2, 8)
    assert opened.getpixel((1, 0)) == (255, 0, 0)


def test_modes_become_rgb(tmp_path):
    for mode in ("L", "P", "RGBA", "CMYK", "1", "I;16"):
        path = tmp_path / f"{mode[0]}.tiff"
        Pillow.new(mode, (3, 3)).save(path)
        assert Image(source=str(path)).open().mode == "RGB"


def test_same_content_same_hash(tmp_path, picture):
    other = tmp_path / "elsewhere.png"
    other.write_bytes(picture.read_bytes())
    first = Image(source=str(picture), example="1").sha256()
    assert first == Image(source=str(other), example="2").sha256()
    assert first == Image.of_bytes(picture.read_bytes()).sha256()
    other.write_bytes(picture.read_bytes() + b" ")
    assert first != Image(source=str(other)).sha256()


def test_unreadable(picture, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images.Path, "read_bytes", denied)
    refused(Image(source=str(picture), example="post 7"), "cannot be read: Permission denied")


WHOLE = {kind: encoded(kind, (24, 24)) for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP")}


@pytest.mark.filterwarnings("ignore::UserWarning")
@given(st.sampled_from(sorted(WHOLE)), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=8))
def test_damaged_files_open_or_are_faults(kind, damage):
    data = bytearray(WHOLE[kind])
    for at, value in damage:
        data[at % len(data)] = value
    with contextlib.suppress(ImageFault):  # any other exception fails the test
        assert Image.of_bytes(bytes(data)).open().mode == "RGB"
