"""Image bytes of an artifact, stored once each in Arrow files and read through a memory map.

One file per half gigabyte instead of one per image: half a million captions would otherwise be half
a million inodes. A bank is addressed by the SHA-256 of the encoded bytes.
"""

from __future__ import annotations

import hashlib
import io
import struct
import warnings
import zlib
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

FILE_BYTES = 512 * 2**20
BATCH_BYTES = 8 * 2**20

# What Pillow's decoders raise on files that are cut or damaged.
_BROKEN = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    OverflowError,
    NotImplementedError,
    struct.error,
    zlib.error,
)


class ImageError(ValueError):
    """The bytes are not a picture that can be decoded whole; the message says why."""


class ImageWriter:
    """Writes images into `images-00000.arrow` files of a folder; a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: set[str] = set()
        self._rows: list[tuple[str, bytes]] = []
        self._rows_bytes = 0
        self._file_bytes = 0
        self._num_files = 0
        self._writer: Any = None

    def add(self, encoded: bytes) -> str:
        """Store encoded bytes (once) and return their SHA-256."""
        digest = hashlib.sha256(encoded).hexdigest()
        if digest not in self._seen:
            self._seen.add(digest)
            self._rows.append((digest, encoded))
            self._rows_bytes += len(encoded)
            if self._rows_bytes >= BATCH_BYTES:
                self._flush()
        return digest

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        if self._writer is None or self._file_bytes >= FILE_BYTES:
            self._open_next(pa)
        digests = [digest.encode() for digest, _ in self._rows]
        blobs = [blob for _, blob in self._rows]
        columns = [
            _column(pa, digests, pa.string(), "i"),
            _column(pa, blobs, pa.large_binary(), "q"),
        ]
        self._writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=_schema(pa)))
        self._file_bytes += self._rows_bytes
        self._rows, self._rows_bytes = [], 0

    def _open_next(self, pa: Any) -> None:
        if self._writer is not None:
            self._writer.close()
        path = self._folder / f"images-{self._num_files:05d}.arrow"
        self._writer = pa.ipc.new_file(str(path), _schema(pa))
        self._num_files += 1
        self._file_bytes = 0

    def __enter__(self) -> ImageWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()


class ImageBank:
    """Random access to the images of one or more artifacts."""

    def __init__(self, folders: Iterable[Path]) -> None:
        import pyarrow as pa

        self._folders = tuple(folders)
        self._place: dict[str, tuple[Any, int]] = {}
        for path in (p for folder in self._folders for p in sorted(folder.glob("images-*.arrow"))):
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            for batch in (reader.get_batch(i) for i in range(reader.num_record_batches)):
                blobs = batch.column(1)
                for row, digest in enumerate(batch.column(0).to_pylist()):
                    self._place[digest] = (blobs, row)

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the folders to another process: it maps the same files."""
        return ImageBank, (self._folders,)

    def __contains__(self, digest: str) -> bool:
        return digest in self._place

    def __len__(self) -> int:
        return len(self._place)

    def encoded(self, digest: str) -> bytes:
        """Return the encoded bytes of an image; raise KeyError if it is not in the bank."""
        blobs, row = self._place[digest]
        return bytes(blobs[row].as_py())

    def open(self, digest: str) -> Image:
        """Return the decoded image as RGB."""
        return decode(self.encoded(digest))


def decode(encoded: bytes) -> Image:
    """Decode to upright RGB; transparent pixels become white. Raise `ImageError` on broken files.

    Pictures deeper than 8 bits are scaled to their range, where Pillow's own conversion would turn
    all but the darkest pixels white.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    bombs = (Image.DecompressionBombError, Image.DecompressionBombWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            opened = Image.open(io.BytesIO(encoded))
            opened.load()
            # In place, and below only where need be: each copy costs a fifth of the decoding.
            ImageOps.exif_transpose(opened, in_place=True)
            return _as_rgb(opened)
        except UnidentifiedImageError as error:  # its own message holds a memory address
            raise ImageError("not a picture of a known format") from error
        except (*_BROKEN, *bombs) as error:
            raise ImageError(str(error) or type(error).__name__) from error


def size_px(encoded: bytes) -> tuple[int, int]:
    """Return width and height from the header alone, before any rotation that it asks for."""
    from PIL import Image

    return Image.open(io.BytesIO(encoded)).size


def _as_rgb(opened: Image) -> Image:
    from PIL import Image

    if opened.mode in ("RGBA", "LA", "PA") or "transparency" in opened.info:
        picture = opened.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    if opened.mode.startswith(("I", "F")):
        return _from_deep(opened).convert("RGB")
    return opened if opened.mode == "RGB" else opened.convert("RGB")


def _from_deep(opened: Image) -> Image:
    """Return 8-bit grey: 16-bit modes have a range, the others are stretched between extremes."""
    import numpy as np
    from PIL import Image

    values = np.nan_to_num(np.asarray(opened, dtype=np.float64))
    has_range = opened.mode.startswith("I;16")
    low, high = (0.0, 65535.0) if has_range else (values.min(), values.max())
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def encode_png(picture: Image) -> bytes:
    """Encode losslessly; equal pixels give equal bytes for one version of Pillow."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", compress_level=3)
    return buffer.getvalue()


def _column(pa: Any, values: Sequence[bytes], kind: Any, offset: str) -> Any:
    """Return a column of bytes; `pa.array` would import pandas, which takes half a second."""
    offsets = array(offset, accumulate(map(len, values), initial=0))
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(values))]
    return pa.Array.from_buffers(kind, len(values), buffers)


def _schema(pa: Any) -> Any:
    return pa.schema([("sha256", pa.string()), ("encoded", pa.large_binary())])
