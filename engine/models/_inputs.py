"""Turns rendered conversations into token ids and image tensors, fast.

A processor does both at once and again for every row. Here each distinct image is prepared once,
in batches of equal size, and its tokens are learnt once per size by asking the processor; rows are
then tokenised as plain text. Families whose tensors depend on text and images together (axis None)
go through their processor, batch by batch.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine import images
from engine.models._chat import ChatError, Piece
from engine.models._loading import ModelKit

CACHE_BYTES = 4 * 2**30
IMAGES_AT_ONCE = 64
ROWS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Tokens:
    """A tokenised row; `starts` are the characters at which tokens begin."""

    ids: Any  # numpy int64
    starts: Any  # numpy int64
    is_image: Any  # numpy bool


@dataclass(slots=True)
class InputMaker:
    """Makes model inputs; `read_image` gives the encoded bytes of a digest."""

    kit: ModelKit
    read_image: Callable[[str], bytes]
    cache_bytes: int = CACHE_BYTES
    _tensors: OrderedDict[str, dict[str, Any]] = field(default_factory=OrderedDict)
    _tensor_bytes: int = 0
    _is_full: bool = False
    _sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    _expansions: dict[tuple[int, int], str] = field(default_factory=dict)
    _has_bos: bool | None = None

    def size_of(self, digest: str) -> tuple[int, int]:
        """Return an image's size as it is shown. Raise ImageError if it cannot be decoded."""
        if digest not in self._sizes:
            picture = images.decode(self.read_image(digest))
            self._note(digest, picture)
        return self._sizes[digest]

    def expanded(self, digest: str) -> str:
        """Return the text that stands for an image in the model's input."""
        marker = self.kit.image_marker
        if self.kit.family.image_axis is None or marker is None:
            return marker or ""
        return self._expansions[self.size_of(digest)]

    def text_of(self, pieces: Sequence[Piece], digests: Sequence[str]) -> tuple[str, list[int]]:
        """Return the whole text of a row, and the character at which each piece starts."""
        marker = self.kit.image_marker
        text, places = "", []
        for piece in pieces:
            if piece.image is None and marker and marker in piece.text:
                raise ChatError(f"the text holds the model's image marker `{marker}`")
            places.append(len(text))
            text += piece.text if piece.image is None else self.expanded(digests[piece.image])
        return text, places

    def tokenize(self, texts: Sequence[str]) -> Iterator[Tokens]:
        """Tokenise texts that already hold their special tokens."""
        import numpy as np

        tokenizer = self.kit.tokenizer
        image_id = self.kit.image_token_id
        for first in range(0, len(texts), ROWS_AT_ONCE):
            chunk = list(texts[first : first + ROWS_AT_ONCE])
            for text, ids, offsets in zip(chunk, *self._encode(chunk), strict=True):
                starts = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)[:, 0]
                array = np.asarray(ids, dtype=np.int64)
                if len(array) and tokenizer.bos_token_id is not None and self._adds_bos(text):
                    starts[0] = -1  # no character of the text
                yield Tokens(array, starts, array == image_id)

    def features(self, digests: Sequence[str]) -> list[dict[str, Any]]:
        """Return the image tensors of each digest; prepares those that are not cached."""
        found = {d: self._tensors[d] for d in digests if d in self._tensors}
        missing = [d for d in dict.fromkeys(digests) if d not in found]
        if missing:  # which may push some of the others out of the cache
            found |= self._prepare(missing)
        return [found[d] for d in digests]

    def image_batch(self, rows: Sequence[Sequence[str]]) -> dict[str, Any]:
        """Return the image tensors of a batch; `rows` are the digests of each of its rows."""
        flat = [digest for row in rows for digest in row]
        if not flat:
            return {}
        made = iter(self.features(flat))
        per_row = [[next(made) for _ in row] for row in rows]
        axis = self.kit.family.image_axis
        if axis == 0:
            return _joined([one for row in per_row for one in row], 0)
        shown = [_joined(row, 1) for row in per_row if row]
        joined = _joined(shown, 0)
        if len(shown) == len(rows):
            return joined
        return _with_empty_rows(joined, [bool(row) for row in per_row])

    def whole_batch(
        self, texts: Sequence[str], rows: Sequence[Sequence[str]], side: str
    ) -> dict[str, Any]:
        """Make a batch with the processor itself; for families that need it."""
        pictures = [[images.decode(self.read_image(d)) for d in row] for row in rows]
        self.kit.tokenizer.padding_side = side
        made = self.kit.processor(
            text=list(texts),
            images=pictures if any(pictures) else None,
            padding=True,
            add_special_tokens=False,
            return_tensors="pt",
        )
        return dict(made)

    def learn(self, digests: Sequence[str]) -> dict[str, str]:
        """Prepare images ahead, in batches; return what is wrong with those that cannot be read."""
        problems: dict[str, str] = {}
        new = [d for d in dict.fromkeys(digests) if d not in self._sizes]
        for first in range(0, len(new), IMAGES_AT_ONCE):
            readable = []
            for digest in new[first : first + IMAGES_AT_ONCE]:
                try:
                    picture = images.decode(self.read_image(digest))
                except images.ImageError as error:
                    problems[digest] = str(error)
                    continue
                self._note(digest, picture)
                readable.append((digest, picture))
            if self.kit.family.image_axis is not None and not self._is_full:
                self._prepare_pictures(readable)  # else they would only push out others
        return problems

    def _note(self, digest: str, picture: Any) -> None:
        """Remember an image's size; learn how the processor writes images of that size."""
        size = (picture.width, picture.height)
        if size not in self._expansions and self.kit.family.image_axis is not None:
            self._expansions[size] = self._ask_expansion(picture)
        self._sizes[digest] = size

    def _ask_expansion(self, picture: Any) -> str:
        kit = self.kit
        made = kit.processor(text=[kit.image_marker], images=[[picture]], padding=False)
        ids = [int(i) for i in made["input_ids"][0]]
        if ids and ids[0] == kit.tokenizer.bos_token_id and self._adds_bos(kit.image_marker or ""):
            ids = ids[1:]
        text = str(kit.tokenizer.decode(ids, skip_special_tokens=False))
        if kit.tokenizer(text, add_special_tokens=False)["input_ids"] != ids:
            raise ChatError("the tokens of an image cannot be written as text")
        return text.removesuffix(kit.family.added_by_processor)

    def _adds_bos(self, text: str) -> bool:
        """Tell whether tokenising adds a begin-of-text: not where the template wrote one itself."""
        bos = self.kit.tokenizer.bos_token
        if not bos or text.startswith(bos):
            return False
        if self._has_bos is None:
            plain = self.kit.tokenizer("x", add_special_tokens=True)["input_ids"]
            self._has_bos = bool(plain) and plain[0] == self.kit.tokenizer.bos_token_id
        return self._has_bos

    def _encode(self, chunk: list[str]) -> tuple[list[Any], list[Any]]:
        ids: list[Any] = [None] * len(chunk)
        offsets: list[Any] = [None] * len(chunk)
        groups: Mapping[bool, list[int]] = _grouped(chunk, self._adds_bos)
        for adds_bos, rows in groups.items():
            made = self.kit.tokenizer(
                [chunk[row] for row in rows],
                add_special_tokens=adds_bos,
                return_offsets_mapping=True,
                return_attention_mask=False,
            )
            for row, row_ids, row_offsets in zip(
                rows, made["input_ids"], made["offset_mapping"], strict=True
            ):
                ids[row], offsets[row] = row_ids, row_offsets
        return ids, offsets

    def _prepare(self, digests: Sequence[str]) -> dict[str, dict[str, Any]]:
        pictures = [(digest, images.decode(self.read_image(digest))) for digest in digests]
        for digest, picture in pictures:
            self._note(digest, picture)
        return self._prepare_pictures(pictures)

    def _prepare_pictures(self, pictures: Sequence[tuple[str, Any]]) -> dict[str, dict[str, Any]]:
        """Run the image processor over pictures of equal size at once, and cut its tensors up."""
        by_size = _grouped(pictures, lambda one: (one[1].width, one[1].height))
        made: dict[str, dict[str, Any]] = {}
        nested = self.kit.family.image_axis == 1
        for rows in by_size.values():
            chosen = [pictures[row] for row in rows]
            shown = [[picture] if nested else picture for _, picture in chosen]
            batch = self.kit.processor.image_processor(
                images=shown, return_tensors="pt", **self.kit.family.image_options
            )
            # Some processors tell themselves how many tiles they cut; no model reads that.
            tensors = {k: v for k, v in batch.items() if hasattr(v, "shape") and k[:4] != "num_"}
            for number, (digest, _) in enumerate(chosen):
                made[digest] = _slice(tensors, number, len(chosen))
                self._keep(digest, made[digest])
        return made

    def _keep(self, digest: str, tensors: dict[str, Any]) -> None:
        size = sum(tensor.nbytes for tensor in tensors.values())
        if digest in self._tensors or size > self.cache_bytes:
            return
        self._tensors[digest] = tensors
        self._tensor_bytes += size
        while self._tensor_bytes > self.cache_bytes:
            self._is_full = True
            _, dropped = self._tensors.popitem(last=False)
            self._tensor_bytes -= sum(tensor.nbytes for tensor in dropped.values())


def char_at(places: Sequence[int], place: tuple[int, int]) -> int:
    """Return the character of a (piece, offset) place of a rendered row."""
    return places[place[0]] + place[1]


def _grouped(items: Sequence[Any], key: Callable[[Any], Any]) -> dict[Any, list[int]]:
    groups: dict[Any, list[int]] = defaultdict(list)
    for position, item in enumerate(items):
        groups[key(item)].append(position)
    return dict(groups)


def _slice(tensors: Mapping[str, Any], number: int, count: int) -> dict[str, Any]:
    """Return the rows of one of `count` equal images; copied, or the batch would stay alive."""
    result = {}
    for name, tensor in tensors.items():
        share = tensor.shape[0] // count
        result[name] = tensor[number * share : (number + 1) * share].clone()
    return result


def _joined(rows: Sequence[Mapping[str, Any]], axis: int) -> dict[str, Any]:
    """Join tensors along an axis; zeros fill them to a common shape on the other axes."""
    import torch

    joined = {}
    for name in rows[0]:
        tensors = [row[name] for row in rows]
        shapes = {tuple(t.shape[:axis]) + tuple(t.shape[axis + 1 :]) for t in tensors}
        if len(shapes) > 1:
            tensors = _padded(tensors, axis)
        joined[name] = torch.cat(tensors, dim=axis)
    return joined


def _padded(tensors: Sequence[Any], axis: int) -> list[Any]:
    import torch

    rank = tensors[0].ndim
    largest = [max(t.shape[d] for t in tensors) for d in range(rank)]
    result = []
    for tensor in tensors:
        shape = [tensor.shape[d] if d == axis else largest[d] for d in range(rank)]
        filled = torch.zeros(shape, dtype=tensor.dtype)
        filled[tuple(slice(0, length) for length in tensor.shape)] = tensor
        result.append(filled)
    return result


def _with_empty_rows(joined: Mapping[str, Any], has_images: Sequence[bool]) -> dict[str, Any]:
    """Put all-zero rows where a row of the batch has no image."""
    import torch

    where = torch.tensor(has_images)
    result = {}
    for name, tensor in joined.items():
        full = torch.zeros((len(has_images), *tensor.shape[1:]), dtype=tensor.dtype)
        full[where] = tensor
        result[name] = full
    return result
