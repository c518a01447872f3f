"""The session of the backend `vllm`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from engine.backends import Completion, Request, Sampling
from engine.backends._talk import Prompt, Talk
from engine.images import decode
from engine.models._loading import ModelKit


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
