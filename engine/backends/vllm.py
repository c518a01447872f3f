"""Runs a model with vLLM: many requests at once, for large models on GPUs.

Prompts and endings are the project's own, as with every backend; vLLM only writes tokens.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from engine.backends import Backend, Completion, ModelFiles, Request, Sampling
from engine.backends._talk import Prompt, Talk
from engine.images import decode
from engine.models._loading import ModelKit, open_kit
from engine.plan.stage import Machine
from engine.plugin import AtLeast, Between, Neutral

CPU_CACHE_GIB = 1  # of the key-value cache where there is no GPU; vLLM would take half the memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """How the model is run."""

    dtype: Annotated[
        Literal["auto", "float32", "bfloat16"],
        "Number format; auto: bfloat16 on a GPU, float32 on a CPU.",
    ] = "auto"
    max_model_len: Annotated[
        int | None, AtLeast(1), "Most tokens of prompt and answer; null: what the model holds."
    ] = None
    max_images: Annotated[int, AtLeast(1), Neutral(), "Most images of one request."] = 1
    max_num_seqs: Annotated[int, AtLeast(1), Neutral(), "Requests answered at once."] = 64
    gpu_memory_utilization: Annotated[
        float, Between(0.05, 1.0), Neutral(), "Share of the GPU's memory to take."
    ] = 0.9
    tensor_parallel_size: Annotated[int, AtLeast(1), Neutral(), "GPUs for one model."] = 1


class VllmSession(Talk):
    """An engine in memory."""

    def __init__(self, kit: ModelKit, engine: Any, context_tokens: int, declared_eos: Any) -> None:
        super().__init__(kit, declared_eos)
        self._engine: Any = engine
        self._context_tokens = context_tokens

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> list[Completion]:
        """Answer all requests, in their order."""
        done: dict[int, Completion] = {}
        prompts = self._prompts(requests, sampling, done)
        outputs = (
            self._engine.generate(
                [self._asked(prompt) for prompt in prompts.values()],
                [self._rules(prompt, sampling) for prompt in prompts.values()],
                use_tqdm=False,
            )
            if prompts
            else []
        )
        for (number, prompt), output in zip(prompts.items(), outputs, strict=True):
            written = list(output.outputs[0].token_ids)
            done[number] = self._completion(prompt, written, self._ending(prompt.request))
        self._encoded.clear()
        return [done[number] for number in range(len(requests))]

    def close(self) -> None:
        """Give memory back."""
        import gc

        self._engine = None
        gc.collect()

    def _asked(self, prompt: Prompt) -> dict[str, Any]:
        if not prompt.digests:
            return {"prompt_token_ids": prompt.ids.tolist()}
        request, marker = prompt.request, self._kit.image_marker
        pieces = self._kit.chat.prompt(request.turns, request.opens)
        text = "".join(p.text if p.image is None else str(marker) for p in pieces)
        order = [piece.image for piece in pieces if piece.image is not None]
        images = [decode(request.images[number]) for number in order]
        return {"prompt": text, "multi_modal_data": {"image": images}}

    def _rules(self, prompt: Prompt, sampling: Sampling) -> Any:
        from vllm import SamplingParams

        ending = self._ending(prompt.request)
        return SamplingParams(
            temperature=sampling.temperature,
            seed=sampling.seed,
            max_tokens=sampling.max_new_tokens,
            ignore_eos=True,
            stop_token_ids=list(ending.token_ids),
            stop=[self._kit.chat.end_of_text()] if ending.run else [],
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
        )


def open_session(files: ModelFiles, params: Params, machine: Machine) -> VllmSession:
    """Start an engine. Raise StageError if it is no known model."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(CPU_CACHE_GIB))
    kit = open_kit(files.path, files.revision, files.trust_remote_code)
    from transformers import GenerationConfig
    from vllm import LLM

    is_cpu = machine.device == "cpu"
    wanted = params.dtype
    if wanted == "auto":
        wanted = "float32" if is_cpu else "bfloat16"
    limit = min(params.max_model_len or kit.context_tokens, kit.context_tokens)
    images = {"limit_mm_per_prompt": {"image": params.max_images}} if kit.family.has_vision else {}
    engine = LLM(
        files.path,
        revision=files.revision,
        trust_remote_code=files.trust_remote_code,
        dtype=wanted,
        max_model_len=limit,
        max_num_seqs=params.max_num_seqs,
        gpu_memory_utilization=params.gpu_memory_utilization,
        tensor_parallel_size=params.tensor_parallel_size,
        enforce_eager=is_cpu,
        generation_config="vllm",
        **images,
    )
    try:
        found = GenerationConfig.from_pretrained(files.path, revision=files.revision).eos_token_id
    except OSError:
        found = None
    return VllmSession(kit, engine, limit, found)


PLUGIN = Backend(version=1, params=Params, open=open_session)
