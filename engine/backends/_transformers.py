"""The session of the backend `transformers`: what is asked together, and what fails alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from engine.backends import Choices, Completion, Flow, Likelihoods, Request, Result, Sampling
from engine.backends import _lockstep as lockstep
from engine.backends._talk import Ending, Prompt, Talk, failed
from engine.backends._transformers_choice import chosen, stream_of
from engine.backends._transformers_guide import Guides, allowed
from engine.backends._transformers_prefix import FEWEST, Prefixes, shared
from engine.backends._transformers_rows import Rows, is_plain_cache, prefilled
from engine.diagnostics import StageError
from engine.models._inputs import InputMaker
from engine.models._loading import ModelKit
from engine.records import ImagePart, user

Answer = TypeVar("Answer")
OUT_OF_MEMORY = "out of memory"
FEWEST_ROWS = 4  # that begin alike are worth a batch of their own


@dataclass(slots=True)
class Row:
    """A request that is being answered."""

    number: int
    prompt: Prompt
    ending: Ending
    stream: Any  # of random numbers; None where none are drawn
    guide: Any  # to an answer of a given form; None where it is free
    written: list[int] = field(default_factory=list)

    def add(self, token: int) -> None:
        """Note a token."""
        self.written.append(token)
        if self.guide is not None:
            self.guide.consume_token(token)

    def is_done(self, max_new_tokens: int) -> bool:
        """Tell whether the last token ends it."""
        run = list(self.ending.run)
        return (
            len(self.written) >= max_new_tokens
            or (self.guide is not None and self.guide.is_stopped())
            or self.written[-1] in self.ending.token_ids
            or bool(run and self.written[-len(run) :] == run)
        )


class TransformersSession(Talk):
    """A model in memory."""

    def __init__(
        self, kit: ModelKit, model: Any, batch_size: int, batch_tokens: int, device: str
    ) -> None:
        super().__init__(kit, getattr(model.generation_config, "eos_token_id", None))
        self._model: Any = model
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self._device = device
        self._prefixes = Prefixes(self._read_prefix)
        self._guides = Guides(kit.tokenizer)
        model.generation_config = _plain_config(kit)
        model.eval()

    def load_adapter(self, adapter: str, revision: str | None = None) -> None:
        """Put a LoRA adapter on the model. Raise StageError if it changes nothing."""
        from engine.backends._transformers_adapter import with_adapter

        self._model = with_adapter(self._model, adapter, revision, self._probed)

    def _probed(self, model: Any) -> Any:
        """Return a model's logits after a probe, with an image where it sees images."""
        import torch
        from PIL import Image

        from engine.images import encode_png

        sees = self._kit.family.has_vision
        picture = encode_png(Image.linear_gradient("L").convert("RGB"))
        turn = user(*([ImagePart(0)] * sees), "What is this?")
        probe = Request((turn,), (picture,) * sees, is_raw=not self._kit.chat.has_template)
        refused: dict[int, Completion] = {}
        prompts = list(self._prompts([probe], Sampling(1), refused).values())
        if not prompts:
            raise StageError(f"the probe of an adapter failed: {refused[0].error}")
        with torch.inference_mode():
            return prefilled(model, self._batch(prompts), self._kit.pad_id).logits.float().cpu()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""
        import torch

        done: dict[int, Completion] = {}
        prompts = self._prompts(requests, sampling, done)
        with torch.inference_mode():
            for group in _alike(prompts):
                prefix = shared([prompts[number] for number in group])
                done |= self._answered({n: prompts[n] for n in group}, sampling, prefix)
        self._encoded.clear()
        return [done[number] for number in range(len(requests))]

    def score(self, asked: Sequence[Choices]) -> list[Likelihoods]:
        """Return how likely the choices of each request are, in their order."""
        import torch

        refused: dict[int, Completion] = {}
        prompts = self._prompts([one.request for one in asked], Sampling(1), refused)
        done = {number: Likelihoods((), error=one.error) for number, one in refused.items()}
        with torch.inference_mode():
            for group in _alike(prompts):
                prefix = shared([prompts[number] for number in group])
                waiting = deque(group)
                while waiting:
                    now = self._next(waiting, prompts, 0, 0, Sampling(1))
                    done |= self._scored({n: prompts[n] for n in now}, asked, prefix)
        self._encoded.clear()
        return [done[number] for number in range(len(asked))]

    def run(self, flows: Iterable[Flow[Result]]) -> Iterator[tuple[int, Result]]:
        """Run flows in rounds; yield each one's number and result when it ends."""
        return lockstep.run(self, flows)

    def _scored(
        self, prompts: Mapping[int, Prompt], asked: Sequence[Choices], prefix: tuple[int, ...]
    ) -> dict[int, Likelihoods]:
        """Read a batch of prompts once, and see how likely each choice is as the next token."""

        def score(some: Mapping[int, Prompt]) -> dict[int, Likelihoods]:
            return self._scored(some, asked, prefix)

        def fail(reason: str) -> Likelihoods:
            return Likelihoods((), error=reason)

        try:
            logits = self._prefilled(list(prompts.values()), prefix).logits
            rows = logits.float().log_softmax(dim=-1).cpu()
            return {
                number: Likelihoods(
                    tuple(row[list(self._choice_ids(prompt, asked[number]))].tolist()),
                    len(prompt.ids),
                )
                for (number, prompt), row in zip(prompts.items(), rows, strict=True)
            }
        except Exception as error:  # whatever it is, it must not cost the neighbours
            reason = self._blamed(error)
        return self._halved(prompts, reason, score, fail)

    def _answered(
        self, prompts: Mapping[int, Prompt], sampling: Sampling, prefix: tuple[int, ...]
    ) -> dict[int, Completion]:
        """Answer prompts that end alike; those in hand when something fails are asked again."""

        def answer(some: Mapping[int, Prompt]) -> dict[int, Completion]:
            return self._answered(some, sampling, prefix)

        done: dict[int, Completion] = {}
        waiting = deque(prompts)
        while waiting:
            hand: dict[int, Row] = {}
            try:
                self._write(waiting, prompts, hand, done, sampling, prefix)
                continue
            except Exception as error:  # whatever it is, it must not cost the neighbours
                reason = self._blamed(error)
                if not hand:
                    raise
            done |= self._halved({n: prompts[n] for n in hand}, reason, answer, failed)
        return done

    def _blamed(self, error: Exception) -> str:
        """Return why a batch failed. Raises the error again if it is no request's fault."""
        import torch

        # After an error of the device itself every call fails: the process must begin anew.
        if isinstance(error, StageError | torch.AcceleratorError):
            raise error
        if not isinstance(error, torch.OutOfMemoryError | MemoryError):
            return f"{type(error).__name__}: {error}"
        if self._device != "cpu":
            torch.cuda.empty_cache()
        return OUT_OF_MEMORY

    def _halved(
        self,
        prompts: Mapping[int, Prompt],
        reason: str,
        answer: Callable[[Mapping[int, Prompt]], dict[int, Answer]],
        fail: Callable[[str], Answer],
    ) -> dict[int, Answer]:
        """Ask the two halves of a batch that failed; one request that fails alone has failed."""
        numbers = list(prompts)
        if len(numbers) == 1:
            return {numbers[0]: fail(reason)}
        half = len(numbers) // 2
        if reason == OUT_OF_MEMORY:
            self._batch_size = half
        parts = (numbers[:half], numbers[half:])
        return {k: v for part in parts for k, v in answer({n: prompts[n] for n in part}).items()}

    def _write(
        self,
        waiting: deque[int],
        prompts: Mapping[int, Prompt],
        hand: dict[int, Row],
        done: dict[int, Completion],
        sampling: Sampling,
        prefix: tuple[int, ...],
    ) -> None:
        """Write until nothing waits; `hand` and `done` are kept up to date for who catches."""
        rows: Rows | None = None
        running: list[Row] = []  # as they lie in the batch, those that are done among them
        while waiting or hand:
            stay = [place for place, row in enumerate(running) if row.number in hand]
            if rows is None or not stay or _is_time(rows, len(running), len(stay), bool(waiting)):
                rows = _kept(rows, stay, len(running))
                running = [running[place] for place in stay]
                taken = self._joining(rows, waiting, prompts, len(stay), sampling)
                for number in taken:
                    hand[number] = self._row(number, prompts[number], sampling)
                    running.append(hand[number])
                if taken:
                    fresh = self._prefilled([prompts[number] for number in taken], prefix)
                    rows = fresh if rows is None else rows.join(fresh)
            assert rows is not None, "nothing to write, and something in hand"
            logits = allowed(rows.logits, [row.guide for row in running])
            tokens = chosen(logits, sampling, [row.stream for row in running])
            self._note(tokens.tolist(), running, hand, done, sampling)
            if hand:
                rows.write(tokens)

    def _note(
        self,
        tokens: Sequence[int],
        running: Sequence[Row],
        hand: dict[int, Row],
        done: dict[int, Completion],
        sampling: Sampling,
    ) -> None:
        """Note a token of each row, and take what is done out of hand."""
        for row, token in zip(running, tokens, strict=True):
            if row.number not in hand:
                continue  # done, and not gone yet
            row.add(token)
            if row.is_done(sampling.max_new_tokens):
                done[row.number] = self._ended(row)
                del hand[row.number]

    def _ended(self, row: Row) -> Completion:
        done = self._completion(row.prompt, row.written, row.ending)
        is_whole = row.guide is not None and row.guide.is_accepting() and row.guide.is_stopped()
        return replace(done, finish="stop") if is_whole else done

    def _row(self, number: int, prompt: Prompt, sampling: Sampling) -> Row:
        stream = stream_of(prompt, sampling) if sampling.temperature > 0 else None
        ending, schema = self._ending(prompt.request), sampling.json_schema
        guide = None if schema is None else self._guides.guide(schema, ending.token_ids)
        return Row(number, prompt, ending, stream, guide)

    def _joining(
        self,
        rows: Rows | None,
        waiting: deque[int],
        prompts: Mapping[int, Prompt],
        num_rows: int,
        sampling: Sampling,
    ) -> list[int]:
        """Take what fits beside the rows of a batch."""
        if rows is None:
            return self._next(waiting, prompts, 0, 0, sampling)
        if not rows.can_join:
            return []
        return self._next(waiting, prompts, num_rows, rows.width, sampling)

    def _next(
        self,
        waiting: deque[int],
        prompts: Mapping[int, Prompt],
        num_rows: int,
        width: int,
        sampling: Sampling,
    ) -> list[int]:
        """Take prompts, the longest first, while rows and tokens allow; the first in any case."""
        taken: list[int] = []
        while waiting and num_rows + len(taken) < self._batch_size:
            width = max(width, len(prompts[waiting[0]].ids))
            needed = (num_rows + len(taken) + 1) * (width + sampling.max_new_tokens)
            if needed > self._batch_tokens and num_rows + len(taken):
                break
            taken.append(waiting.popleft())
        return taken

    def _prefilled(self, prompts: Sequence[Prompt], prefix: tuple[int, ...]) -> Rows:
        """Read prompts; of a shared beginning only once."""
        cache = self._prefixes.cache(prefix, len(prompts)) if prefix else None
        if cache is None:
            return prefilled(self._model, self._batch(prompts), self._kit.pad_id)
        batch = self._batch(prompts, len(prefix))
        return prefilled(self._model, {**batch, "past_key_values": cache}, self._kit.pad_id)

    def _read_prefix(self, tokens: tuple[int, ...]) -> Any:
        """Return the keys and values of a beginning; None if they are not one for each token.

        Nor where a beginning attends to what follows it.
        """
        if self._kit.family.marks_answer:
            return None
        import numpy as np
        import torch

        ids = torch.from_numpy(np.array([tokens], dtype=np.int64))
        batch = self._text_batch(ids, torch.ones_like(ids))
        cache = prefilled(self._model, batch, self._kit.pad_id).state["past_key_values"]
        return cache if is_plain_cache(cache, len(tokens)) else None

    def close(self) -> None:
        """Give memory back."""
        import gc

        import torch

        self._model = None
        self._prefixes.clear()
        self._inputs = InputMaker(self._kit, lambda digest: self._encoded[digest])
        gc.collect()
        if self._device != "cpu":
            torch.cuda.empty_cache()

    def _batch(self, prompts: Sequence[Prompt], num_shared: int = 0) -> dict[str, Any]:
        """Return model inputs, padded on the left of what is not shared."""
        import torch

        kit = self._kit
        rows = [prompt.digests for prompt in prompts]
        if kit.family.has_vision and kit.family.image_axis is None and any(rows):
            batch = self._inputs.whole_batch([prompt.text for prompt in prompts], rows, "left")
            return {name: self._moved(tensor) for name, tensor in batch.items()}
        width = max(len(prompt.ids) for prompt in prompts)
        ids = torch.full((len(prompts), width), kit.pad_id)
        mask = torch.zeros_like(ids)
        for number, prompt in enumerate(prompts):
            start = width - len(prompt.ids) + num_shared
            ids[number, start:] = torch.from_numpy(prompt.ids[num_shared:])
            ids[number, :num_shared] = torch.from_numpy(prompt.ids[:num_shared])
            mask[number, start:] = 1
            mask[number, :num_shared] = 1
        pictures = self._inputs.image_batch(rows)
        moved = {name: self._moved(tensor) for name, tensor in pictures.items()}
        return {**self._text_batch(ids, mask), **moved}

    def _text_batch(self, ids: Any, mask: Any) -> dict[str, Any]:
        kit = self._kit
        batch = {"input_ids": ids, "attention_mask": mask}
        if kit.family.marks_image_tokens:
            marked = ids == kit.image_token_id
            batch[kit.family.marks_image_tokens] = marked.long()
        if kit.family.marks_answer:
            batch[kit.family.marks_answer] = ids.new_zeros(ids.shape)
        return {name: self._moved(tensor) for name, tensor in batch.items()}

    def _moved(self, tensor: Any) -> Any:
        if tensor.is_floating_point():
            return tensor.to(self._device, self._model.dtype)
        return tensor.to(self._device)


def _alike(prompts: Mapping[int, Prompt]) -> list[list[int]]:
    """Group requests that may be in one batch, those with the longest prompts first.

    Those without images are apart: some processors refuse to mix them with others. Of those, a
    group begins alike, as far as its first tokens tell.
    """
    groups: dict[bytes, list[int]] = {}
    for number, prompt in prompts.items():
        kind = b"image" if prompt.digests else b""
        if not prompt.digests and len(prompt.ids) > FEWEST:
            kind = prompt.ids[:FEWEST].tobytes()
        groups.setdefault(kind, []).append(number)
    found = {k: group for k, group in groups.items() if k == b"image" or len(group) >= FEWEST_ROWS}
    others = [number for kind, group in groups.items() if kind not in found for number in group]
    for group in (grouped := [*found.values(), *([others] if others else [])]):
        group.sort(key=lambda number: (-len(prompts[number].ids), number))
    return grouped


def _plain_config(kit: ModelKit) -> Any:
    """Return generation defaults without a checkpoint's own sampling and penalties."""
    from transformers import GenerationConfig

    return GenerationConfig(pad_token_id=kit.pad_id)


def _is_time(rows: Rows, num_running: int, num_left: int, is_waiting: bool) -> bool:
    """Tell whether rows that are done leave now: moving a cache costs about one token.

    They leave when half of the rows are done, or when a quarter can be replaced by others.
    """
    num_done = num_running - num_left
    if is_waiting and rows.can_join:
        return num_done * 4 >= num_running
    return num_done * 2 >= num_running and rows.can_leave


def _kept(rows: Rows | None, stay: Sequence[int], num_running: int) -> Rows | None:
    """Return a batch without its finished rows; None if nothing is left."""
    if rows is None or not stay:
        return None
    if len(stay) < num_running:
        rows.keep(stay)
    return rows
