"""Runs a model in this process with transformers: any family, CPU or GPU.

Requests are sorted by length and padded on the left; neither that nor the batch size changes what
is written, but for float noise. Sampling draws its noise from the request, not from the batch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from engine.backends import Backend, Completion, ModelFiles, Request, Sampling
from engine.images import ImageError
from engine.models._chat import ChatError
from engine.models._inputs import InputMaker
from engine.models._loading import ModelKit, load_weights, open_kit
from engine.plan.stage import Machine
from engine.plugin import AtLeast, Neutral
from engine.records import Turn, assistant, user


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """How the model is run."""

    batch_size: Annotated[int, AtLeast(1), Neutral(), "Requests answered at once."] = 16
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        "Number format; auto: bfloat16 on a GPU, float32 on a CPU.",
    ] = "auto"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A request as the model sees it."""

    request: Request
    text: str
    digests: tuple[str, ...]
    ids: Any  # numpy


@dataclass(frozen=True, slots=True)
class Ending:
    """When the model has finished: at one of these tokens, or after this run of tokens."""

    token_ids: tuple[int, ...]
    run: tuple[int, ...] = ()


class TransformersSession:
    """A model in memory."""

    def __init__(self, kit: ModelKit, model: Any, params: Params, device: str) -> None:
        self._kit = kit
        self._model: Any = model
        self._batch_size = params.batch_size
        self._device = device
        self._encoded: dict[str, bytes] = {}
        self._inputs = InputMaker(kit, lambda digest: self._encoded[digest], 2**29)
        self._eos_ids = _eos_ids(kit, model)
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

    def _prompts(
        self, requests: Sequence[Request], sampling: Sampling, done: dict[int, Completion]
    ) -> dict[int, Prompt]:
        """Write and tokenise prompts; a request that cannot be asked is put into `done`."""
        texts: dict[int, tuple[str, tuple[str, ...]]] = {}
        for number, request in enumerate(requests):
            try:
                texts[number] = self._text(request)
            except (ChatError, ImageError) as error:
                done[number] = _failed(str(error))
        tokens = self._inputs.tokenize([text for text, _ in texts.values()])
        prompts = {}
        for (number, (text, digests)), row in zip(texts.items(), tokens, strict=True):
            needed = len(row.ids) + sampling.max_new_tokens
            if needed > self._kit.context_tokens:
                limit = self._kit.context_tokens
                done[number] = _failed(f"needs {needed} tokens, the model holds {limit}")
            else:
                prompts[number] = Prompt(requests[number], text, digests, row.ids)
        return prompts

    def _text(self, request: Request) -> tuple[str, tuple[str, ...]]:
        if _is_plain(request, self._kit):
            return "".join(turn.text for turn in request.turns), ()
        digests = tuple(hashlib.sha256(encoded).hexdigest() for encoded in request.images)
        self._encoded |= dict(zip(digests, request.images, strict=True))
        pieces = self._kit.chat.prompt(request.turns, request.opens)
        for digest in digests:
            self._inputs.size_of(digest)
        text, _ = self._inputs.text_of(pieces, digests)
        return text, digests

    def _answer(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        import torch

        try:
            return self._answer_at_once(prompts, sampling)
        except torch.OutOfMemoryError:
            if len(prompts) == 1:
                return [_failed("out of memory")]
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

    def _ending(self, request: Request) -> Ending:
        if _is_plain(request, self._kit):
            return Ending(self._eos_ids)
        tokenizer, chat = self._kit.tokenizer, self._kit.chat
        footer = chat.markers("assistant").footer.strip()
        footer_ids = tuple(tokenizer(footer, add_special_tokens=False)["input_ids"])
        if request.opens == "assistant":
            is_token = len(footer_ids) == 1 and footer_ids[0] in tokenizer.all_special_ids
            return Ending(tuple(dict.fromkeys(self._eos_ids + footer_ids * is_token)))
        run = tuple(tokenizer(chat.end_of_text(), add_special_tokens=False)["input_ids"])
        # End markers of turns must not stop a dialogue, though many models list them as an end.
        inside = {*footer_ids, tokenizer.eos_token_id} if footer_ids else set()
        return Ending(tuple(i for i in self._eos_ids if i not in inside), run)

    def _completion(self, prompt: Prompt, written: list[int], ending: Ending) -> Completion:
        ids, is_stopped = _cut(written, ending)
        request, tokenizer = prompt.request, self._kit.tokenizer
        num_new = len(ids) + is_stopped
        if request.opens == "assistant" or _is_plain(request, self._kit):
            text = str(tokenizer.decode(ids, skip_special_tokens=True)).strip()
            turns: tuple[Turn, ...] = (assistant(text),)
        else:
            raw = str(tokenizer.decode(ids, skip_special_tokens=False))
            pairs, is_stopped = self._kit.chat.split(raw, request.opens)
            turns = tuple(user(t) if role == "user" else assistant(t) for role, t in pairs)
        return Completion(turns, len(prompt.ids), num_new, "stop" if is_stopped else "length")


def open_session(files: ModelFiles, params: Params, machine: Machine) -> TransformersSession:
    """Load a model. Raise StageError if it is no known model."""
    import torch

    torch.set_num_threads(machine.num_threads)
    kit = open_kit(files.path, files.revision, files.trust_remote_code)
    wanted = params.dtype
    if wanted == "auto":
        wanted = "float32" if machine.device == "cpu" else "bfloat16"
    model = load_weights(kit, dtype=getattr(torch, wanted), device=machine.device)
    return TransformersSession(kit, model, params, machine.device)


def _is_plain(request: Request, kit: ModelKit) -> bool:
    return request.is_raw or (not kit.chat.has_template and not request.images)


def _failed(reason: str) -> Completion:
    return Completion((), 0, 0, "error", reason)


def _alike(prompts: Mapping[int, Prompt]) -> list[list[int]]:
    """Group requests that end alike: a batch has one rule for when to stop.

    Those without images are apart as well: some processors refuse to mix them with others.
    """
    groups: dict[tuple[str, bool, bool], list[int]] = {}
    for number, prompt in prompts.items():
        kind = (prompt.request.opens, prompt.request.is_raw, bool(prompt.digests))
        groups.setdefault(kind, []).append(number)
    return list(groups.values())


def _eos_ids(kit: ModelKit, model: Any) -> tuple[int, ...]:
    """Return every id that the checkpoint calls an end."""
    found = getattr(model.generation_config, "eos_token_id", None)
    listed = found if isinstance(found, list) else [found]
    ids = [*listed, kit.tokenizer.eos_token_id]
    return tuple(dict.fromkeys(int(i) for i in ids if i is not None))


def _plain_config(kit: ModelKit) -> Any:
    """Return generation defaults without a checkpoint's own sampling and penalties."""
    from transformers import GenerationConfig

    return GenerationConfig(pad_token_id=kit.pad_id)


def _cut(written: list[int], ending: Ending) -> tuple[list[int], bool]:
    """Return the tokens before the end, and whether there is one; a run is kept for splitting."""
    for position, token in enumerate(written):
        if token in ending.token_ids:
            return written[:position], True
        stop = position + 1
        if ending.run and tuple(written[max(stop - len(ending.run), 0) : stop]) == ending.run:
            return written[:stop], True
    return written, False


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


PLUGIN = Backend(version=1, params=Params, open=open_session)
