"""The session of the backend `transformers`: batches, and the draw of each request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.backends import Completion, Request, Sampling
from engine.backends._talk import Prompt, Talk, failed
from engine.models._inputs import InputMaker
from engine.models._loading import ModelKit


class TransformersSession(Talk):
    """A model in memory."""

    def __init__(self, kit: ModelKit, model: Any, batch_size: int, device: str) -> None:
        super().__init__(kit, getattr(model.generation_config, "eos_token_id", None))
        self._model: Any = model
        self._batch_size = batch_size
        self._device = device
        model.generation_config = _plain_config(kit)
        model.eval()

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""
        done: dict[int, Completion] = {}
        prompts = self._prompts(requests, sampling, done)
        for group in _alike(prompts):
            group.sort(key=lambda number: (-len(prompts[number].ids), number))
            while group:
                now, group = group[: self._batch_size], group[self._batch_size :]
                answers = self._answer([prompts[number] for number in now], sampling)
                done |= dict(zip(now, answers, strict=True))
        self._encoded.clear()
        return [done[number] for number in range(len(requests))]

    def close(self) -> None:
        """Give memory back."""
        import gc

        import torch

        self._model = None
        self._inputs = InputMaker(self._kit, lambda digest: self._encoded[digest])
        gc.collect()
        if self._device != "cpu":
            torch.cuda.empty_cache()

    def _answer(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        import torch

        try:
            return self._answer_at_once(prompts, sampling)
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                return [failed("out of memory")]
            if self._device != "cpu":
                torch.cuda.empty_cache()
        half = len(prompts) // 2
        self._batch_size = max(half, 1)
        return self._answer(prompts[:half], sampling) + self._answer(prompts[half:], sampling)

    def _answer_at_once(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        ending = self._ending(prompts[0].request)
        batch = self._batch(prompts)
        width = batch["input_ids"].shape[1]
        noise = [_noise(prompts, sampling)] if sampling.temperature > 0 else []
        with torch.inference_mode():
            written = self._model.generate(
                **batch,
                generation_config=GenerationConfig(
                    max_new_tokens=sampling.max_new_tokens,
                    do_sample=False,
                    use_cache=True,
                    eos_token_id=list(ending.token_ids) or None,
                    pad_token_id=self._kit.pad_id,
                ),
                logits_processor=LogitsProcessorList(noise),
                stopping_criteria=StoppingCriteriaList(
                    [_ends_with(ending.run, width)] if ending.run else []
                ),
            )
        rows = written[:, width:].tolist()
        return [self._completion(p, r, ending) for p, r in zip(prompts, rows, strict=True)]

    def _batch(self, prompts: Sequence[Prompt]) -> dict[str, Any]:
        import torch

        kit = self._kit
        rows = [prompt.digests for prompt in prompts]
        if kit.family.has_vision and kit.family.image_axis is None and any(rows):
            batch = self._inputs.whole_batch([prompt.text for prompt in prompts], rows, "left")
        else:
            width = max(len(prompt.ids) for prompt in prompts)
            ids = torch.full((len(prompts), width), kit.pad_id)
            mask = torch.zeros_like(ids)
            for number, prompt in enumerate(prompts):
                ids[number, width - len(prompt.ids) :] = torch.from_numpy(prompt.ids)
                mask[number, width - len(prompt.ids) :] = 1
            batch = {"input_ids": ids, "attention_mask": mask, **self._inputs.image_batch(rows)}
            if kit.family.marks_image_tokens:
                image_id = kit.tokenizer.convert_tokens_to_ids(kit.image_marker)
                batch["mm_token_type_ids"] = (ids == image_id).long()
        return {name: self._moved(tensor) for name, tensor in batch.items()}

    def _moved(self, tensor: Any) -> Any:
        if tensor.is_floating_point():
            return tensor.to(self._device, self._model.dtype)
        return tensor.to(self._device)


def _alike(prompts: Mapping[int, Prompt]) -> list[list[int]]:
    """Group requests that end alike: a batch has one rule for when to stop.

    Those without images are apart as well: some processors refuse to mix them with others.
    """
    groups: dict[tuple[str, bool, bool], list[int]] = {}
    for number, prompt in prompts.items():
        kind = (prompt.request.opens, prompt.request.is_raw, bool(prompt.digests))
        groups.setdefault(kind, []).append(number)
    return list(groups.values())


def _plain_config(kit: ModelKit) -> Any:
    """Return generation defaults without a checkpoint's own sampling and penalties."""
    from transformers import GenerationConfig

    return GenerationConfig(pad_token_id=kit.pad_id)


def _ends_with(run: tuple[int, ...], width: int) -> Callable[..., Any]:
    """Return a criterion that stops each row on its own when it wrote a run of tokens."""
    import torch

    state: dict[str, Any] = {}

    def is_done(input_ids: Any, scores: Any, **_: Any) -> Any:
        wanted = state.setdefault("run", torch.tensor(run, device=input_ids.device))
        before = state.get("done", torch.zeros(len(input_ids), dtype=torch.bool)).to(wanted.device)
        if input_ids.shape[1] - width < len(run):
            return before
        state["done"] = before | (input_ids[:, -len(run) :] == wanted).all(dim=1)
        return state["done"]

    return is_done


def _noise(prompts: Sequence[Prompt], sampling: Sampling) -> Callable[..., Any]:
    """Return a processor that makes greedy choice a draw from the distribution (Gumbel noise).

    Each request has a random stream of its own, named by its text, images and the seed.
    """
    import torch

    def seed_of(prompt: Prompt) -> int:
        name = f"{sampling.seed}/{prompt.text}/{'/'.join(prompt.digests)}"
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")

    streams = [torch.Generator().manual_seed(seed_of(prompt)) for prompt in prompts]

    def add(_: Any, scores: Any) -> Any:
        drawn = torch.stack([torch.rand(scores.shape[1], generator=s) for s in streams])
        gumbel = -torch.log(-torch.log(drawn.clamp(1e-20, 1 - 1e-7)))
        return scores / sampling.temperature + gumbel.to(scores.device, scores.dtype)

    return add
