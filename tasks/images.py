"""An image is a reference with a content hash, opened late and within stated limits."""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from .record import Record

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage

#: Larger files are refused: a product photo is well below this.
MAX_BYTES = 20 * 1024 * 1024
#: Larger pictures are refused before they are decoded (decompression bombs).
MAX_PIXELS = 50_000_000


class ImageFault(ValueError):
    """A picture that cannot be used: says which example and which file, and why."""

    def __init__(self, example: str, source: str, problem: str) -> None:
        self.example, self.source, self.problem = example, source, problem
        super().__init__(f"example {example or '?'}: image {source}: {problem}")


class Image(Record):
    """A picture by reference: a file's path, or a data URL (``data:image/png;base64,...``).

    Nothing is read until one of the methods is called. Bytes in memory become a reference by `of_bytes`.
    """

    source: str
    example: str = ""

    @classmethod
    def of_bytes(cls, data: bytes, example: str = "", mime: str = "") -> Image:
        """A reference that carries the picture itself, as a data URL; its type is read from the content.

        Bytes that are no picture are taken (as ``image/png``); they are refused when they are opened.
        """
        mime = mime or _mime(data) or "image/png"
        return cls(source=f"data:{mime};base64,{base64.b64encode(data).decode()}", example=example)

    @property
    def label(self) -> str:
        """What to call the picture in a message: its path, or 'data URL' (never the data)."""
        return "data URL" if self.source.startswith("data:") else self.source

    def read(self) -> bytes:
        """The file's bytes; an `ImageFault` if it is missing, empty, too large or no data URL of an image."""
        if self.source.startswith("data:"):
            head, _, body = self.source.partition(",")
            if not head.startswith("data:image/") or not head.endswith(";base64"):
                raise self._fault("not a base64 data URL of an image")
            try:
                data = base64.b64decode(body, validate=True)
            except ValueError:
                raise self._fault("its base64 is broken") from None
        else:
            path = Path(self.source)
            try:
                if not path.is_file():
                    raise self._fault("there is no such file")
                if path.stat().st_size > MAX_BYTES:
                    raise self._fault(f"larger than {MAX_BYTES:,} bytes")
                data = path.read_bytes()
            except OSError as error:
                raise self._fault(f"cannot be read: {error.strerror}") from None
        if not data:
            raise self._fault("the file is empty")
        if len(data) > MAX_BYTES:
            raise self._fault(f"larger than {MAX_BYTES:,} bytes")
        return data

    def sha256(self) -> str:
        """Hash of the content: the same picture under another path has the same hash."""
        return hashlib.sha256(self.read()).hexdigest()

    def open(self) -> PILImage:
        """The decoded picture in RGB, turned upright; an `ImageFault` if it is broken or too many pixels."""
        from PIL import Image as Pillow
        from PIL import ImageOps, UnidentifiedImageError

        data = self.read()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
                with Pillow.open(io.BytesIO(data)) as picture:
                    if picture.width * picture.height > MAX_PIXELS:
                        raise self._fault(f"{picture.width} x {picture.height} is over {MAX_PIXELS:,} pixels")
                    return ImageOps.exif_transpose(picture).convert("RGB")
        except ImageFault:
            raise
        except UnidentifiedImageError:
            raise self._fault("not a picture that can be read") from None
        except Exception as error:  # on broken files Pillow's decoders raise nearly anything
            raise self._fault(f"broken picture: {error}") from None

    def data_url(self) -> str:
        """The picture as a data URL, its type read from the content and not from the file's name."""
        if self.source.startswith("data:"):
            self.read()
            return self.source
        data = self.read()
        mime = _mime(data)
        if not mime:
            raise self._fault("not a picture that can be read")
        return f"data:{mime};base64,{base64.b64encode(data).decode()}"

    def _fault(self, problem: str) -> ImageFault:
        return ImageFault(self.example, self.label, problem)


def _mime(data: bytes) -> str:
    """The type of a picture by its content (``image/jpeg``), or nothing where Pillow knows none."""
    from PIL import Image as Pillow

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            with Pillow.open(io.BytesIO(data)) as picture:
                return Pillow.MIME.get(picture.format or "", "")
    except Exception:  # as in `Image.open`
        return ""
