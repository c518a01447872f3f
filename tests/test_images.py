from __future__ import annotations

import hashlib
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from engine.images import ImageBank, ImageError, ImageWriter, decode, size_px
from tests.sources.building import encoded, picture


def of_mode(mode: str) -> Any:
    import numpy as np
    from PIL import Image

    if mode == "I;16":
        return Image.fromarray(np.array([[0, 30000], [60000, 65535]], dtype=np.uint16))
    if mode in ("I", "F"):
        dtype = np.int32 if mode == "I" else np.float32
        return Image.fromarray(np.array([[0, 30000], [60000, 65535]], dtype=dtype))
    return Image.new(mode, (2, 2))


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16"]
)
def test_every_mode_becomes_rgb(mode: str) -> None:
    image_format = "PNG" if mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16") else "TIFF"

    found = decode(encoded(of_mode(mode), image_format))

    assert (found.mode, found.size) == ("RGB", (2, 2))


@pytest.mark.parametrize(("mode", "image_format"), [("I;16", "PNG"), ("I", "TIFF"), ("F", "TIFF")])
def test_deep_greys_keep_their_steps(mode: str, image_format: str) -> None:
    found = decode(encoded(of_mode(mode), image_format))

    assert list(found.getchannel(0).tobytes()) == [0, 117, 233, 255]


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P"])
def test_transparent_pixels_become_white(mode: str) -> None:
    from PIL import Image

    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0)).convert(mode if mode != "P" else "RGBA")
    if mode == "P":
        clear = clear.quantize()

    assert decode(encoded(clear)).getpixel((0, 0)) == (255, 255, 255)


def test_a_photograph_is_turned_upright() -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: rotate by 90 degrees
    buffer = io.BytesIO()
    Image.new("RGB", (4, 2)).save(buffer, "JPEG", exif=exif)

    assert decode(buffer.getvalue()).size == (2, 4)
    assert size_px(buffer.getvalue()) == (4, 2)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP"])
def test_a_file_that_is_cut_off_is_an_image_error(image_format: str) -> None:
    whole = picture(side_px=64, image_format=image_format)

    for length in (0, 3, 20, len(whole) // 2, len(whole) - 60):
        with pytest.raises(ImageError):
            decode(whole[:length])


def test_a_decompression_bomb_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    bomb = encoded(Image.new("1", (20_000, 10_000)))

    with pytest.raises(ImageError, match="decompression bomb"):
        decode(bomb)


def test_an_image_is_stored_once_and_found_by_its_digest(tmp_path: Path) -> None:
    with ImageWriter(tmp_path) as bank:
        digests = [bank.add(picture(n)) for n in (1, 2, 1)]

    bank_of_two = ImageBank([tmp_path])
    assert len(bank_of_two) == 2
    assert digests[0] == digests[2]
    assert picture(2) == bank_of_two.encoded(digests[1])


def test_writing_images_does_not_wait_for_pandas(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from engine.images import ImageWriter\n"
        "with ImageWriter(Path(sys.argv[1])) as bank: bank.add(b'x')\n"
        "assert 'pandas' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)

    assert ImageBank([tmp_path]).encoded(hashlib.sha256(b"x").hexdigest()) == b"x"
