"""Prepares prompts for vLLM in a thread of its own, while the engine works.

Conversations are tokenised here, with one marker for each image, and vLLM's own processor of the
model puts the tokens of the images in. Sampling draws from a stream that is named by the request
and not by its place, so that a restart draws the same.
"""

from __future__ import annotations

import hashlib
import itertools
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from engine.backends import Ask, Question, Request, Sampling
from engine.backends._talk import Ending, Prompt, Talk, is_plain
from engine.backends._vllm_engine import Engine
from engine.backends._vllm_load import Load, num_bytes
from engine.diagnostics import StageError
from engine.images import ImageError, decode
from engine.models._chat import ChatError
from engine.records import ImagePart, user

Done = Callable[[Any], None]  # gets (Asked, output or error), or an error of the caller
ANSWERED = ("stop", "length")  # finish reasons; others are "error" and "abort"
PROBE_LOG_PROBS = 20
PROBE_PX = 64


class RefusedError(ValueError):
    """A request that cannot be asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is kept of a question until the engine has answered it."""

    question: Question
    prompt: Prompt
    ending: Ending
    choice_ids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question, ready for the engine."""

    asked: Asked
    rendered: Any
    rules: Any


@dataclass(frozen=True, slots=True)
class Unasked:
    """A question that was refused before the engine saw it."""

    question: Question


@dataclass(frozen=True, slots=True)
class _Work:
    """A question that waits, and who waits for the answer."""

    question: Question
    done: Done
    is_again: bool = False  # the engine failed at it once


class Desk:
    """A thread that prepares what is put, questions of flows that are under way first.

    It pauses while the pictures of what is not answered take too much memory.
    """

    def __init__(self, talk: Talk, engine: Engine) -> None:
        self._talk = talk
        self._engine = engine
        self._waiting: queue.PriorityQueue[tuple[int, int, _Work | None]] = queue.PriorityQueue()
        self._numbers = itertools.count()
        self._endings: dict[tuple[str, bool], Ending] = {}
        self._load = Load(engine.max_bytes)
        self._thread = threading.Thread(target=self._work, name="prompts", daemon=True)
        self._thread.start()

    def put(self, question: Question, done: Done, *, is_new: bool) -> None:
        """Prepare a question and ask the engine; `done` is called in another thread."""
        self._put(_Work(question, done), int(is_new))

    def _put(self, work: _Work | None, priority: int) -> None:
        self._waiting.put((priority, next(self._numbers), work))

    def drop_all(self) -> None:
        """Forget what is not prepared yet."""
        while True:
            try:
                self._waiting.get_nowait()
            except queue.Empty:
                return

    def close(self) -> None:
        """End the thread."""
        self.drop_all()
        self._load.lift()
        self._put(None, -1)
        self._thread.join()

    def _work(self) -> None:
        while True:
            self._load.wait()
            priority, _, work = self._waiting.get()
            if work is None:
                return
            self._ask(work, priority)

    def _ask(self, work: _Work, priority: int) -> None:
        try:
            prepared = self.prepared(work.question)
        except RefusedError as error:
            work.done((Unasked(work.question), error))
        except Exception as error:  # a mistake of ours or the caller's: raised where it asks
            work.done(error)
        else:
            size = num_bytes(prepared.rendered.get("mm_kwargs"))
            self._load.add(size)
            told = self._told(work, prepared.asked, size)
            self._engine.ask(prepared.rendered, prepared.rules, told, priority=priority)

    def _told(self, work: _Work, asked: Asked, size: int) -> Callable[[Any], None]:
        """Return what hands an answer on, or asks once more where the engine failed.

        It fails at one question alone when it does not find a picture that it was said to have;
        vLLM has forgotten that by then, and sends the picture again.
        """

        def told(output: Any) -> None:
            self._load.add(-size)
            if is_failure(output) and not work.is_again:
                self._put(replace(work, is_again=True), 0)
            else:
                work.done((asked, output))

        return told

    def prepared(self, question: Question) -> Prepared:
        """Prepare one question. Raise RefusedError if it cannot be asked."""
        request = question.request
        text, images = self._text(request)
        sampling = question.sampling if isinstance(question, Ask) else Sampling(1)
        rendered = self._rendered(text, images, sampling.max_new_tokens)
        ids = rendered["prompt_token_ids"]
        prompt = Prompt(request, text, tuple(digest for digest, _ in images), ids)
        ending = self._ending(request)
        if isinstance(question, Ask):
            rules = self._rules(prompt, ending, sampling)
            return Prepared(Asked(question, prompt, ending), rendered, rules)
        chosen = self._talk._choice_ids(prompt, question)
        rules = _plain_rules(logprob_token_ids=list(chosen))
        return Prepared(Asked(question, prompt, ending, chosen), rendered, rules)

    def probe(self) -> Prepared:
        """Return a question that shows whether an adapter is applied: with a picture, if it can."""
        kit = self._talk._kit
        if kit.family.has_vision:
            request = Request((user(ImagePart(0), "What is shown here?"),), (_picture(),))
        else:
            request = Request((user("What is there to say?"),))
        text, images = self._text(request)
        rendered = self._rendered(text, images, 1)
        prompt = Prompt(request, text, (), rendered["prompt_token_ids"])
        rules = _plain_rules(logprobs=PROBE_LOG_PROBS)
        asked = Asked(Ask(request, Sampling(1)), prompt, Ending(()))
        return Prepared(asked, rendered, rules)

    def _text(self, request: Request) -> tuple[str, list[tuple[str, Any]]]:
        """Return the prompt, one marker for each image, and the images in their order."""
        kit = self._talk._kit
        if is_plain(request, kit):
            return "".join(turn.text for turn in request.turns), []
        marker = kit.image_marker
        try:
            pieces = kit.chat.prompt(request.turns, request.opens)
            opened = [(_digest(encoded), decode(encoded)) for encoded in request.images]
        except (ChatError, ImageError) as error:
            raise RefusedError(str(error)) from error
        if marker and any(piece.image is None and marker in piece.text for piece in pieces):
            raise RefusedError(f"the text holds the model's image marker `{marker}`")
        text = "".join(p.text if p.image is None else str(marker) for p in pieces)
        return text, [opened[piece.image] for piece in pieces if piece.image is not None]

    def _rendered(self, text: str, images: list[tuple[str, Any]], num_new: int) -> Any:
        from vllm.inputs import TokensPrompt

        (tokens,) = self._talk._inputs.tokenize([text])
        self._check_length(len(tokens.ids) + num_new)
        asked: Any = TokensPrompt(prompt_token_ids=tokens.ids.tolist())
        if images:
            asked["multi_modal_data"] = {"image": [picture for _, picture in images]}
            asked["multi_modal_uuids"] = {"image": [digest for digest, _ in images]}
        try:
            (rendered,) = self._engine.core.renderer.render_cmpl([asked])
            self._check_length(len(rendered["prompt_token_ids"]) + num_new)
        except StageError:
            raise
        except Exception as error:  # a model's own processor may raise anything at an odd picture
            self._forget(images)
            raise RefusedError(str(error) or type(error).__name__) from error
        return rendered

    def _forget(self, images: list[tuple[str, Any]]) -> None:
        """Let vLLM prepare pictures anew: it believes that the engine has what it prepared."""
        cache = getattr(self._engine.core.renderer, "mm_processor_cache", None)
        for digest, _ in images:
            if cache is not None:
                cache.invalidate(digest)

    def _check_length(self, needed: int) -> None:
        engine = self._engine
        if needed > engine.model_tokens:
            raise RefusedError(f"needs {needed} tokens, the model holds {engine.model_tokens}")
        if needed > engine.max_tokens:
            raise StageError(  # a row's fate is the recipe's to say, not the machine's
                f"a request needs {needed} tokens; the memory of the GPU holds {engine.max_tokens}",
                hint="set `max_model_len` of the backend, and longer requests fail by themselves; "
                "or take a larger GPU, or more of them (`tensor_parallel_size`)",
            )

    def _ending(self, request: Request) -> Ending:
        key = (request.opens, is_plain(request, self._talk._kit))
        if key not in self._endings:
            self._endings[key] = self._talk._ending(request)
        return self._endings[key]

    def _rules(self, prompt: Prompt, ending: Ending, sampling: Sampling) -> Any:
        from vllm.sampling_params import StructuredOutputsParams

        how: dict[str, Any] = {}
        if sampling.temperature > 0:
            how = {"temperature": sampling.temperature, "top_p": sampling.top_p}
            how["seed"] = _stream(prompt, sampling)
        if sampling.json_schema is not None:
            how["structured_outputs"] = StructuredOutputsParams(json=sampling.json_schema)
        if ending.run:
            how["stop"] = [self._talk._kit.chat.end_of_text()]
        return _plain_rules(
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=list(ending.token_ids),
            detokenize=bool(ending.run),
            **how,
        )


def _plain_rules(**settings: Any) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    plain = {
        "temperature": 0.0,
        "max_tokens": 1,
        "ignore_eos": True,
        "include_stop_str_in_output": True,
        "skip_special_tokens": False,
        "spaces_between_special_tokens": False,
        "detokenize": False,
        "output_kind": RequestOutputKind.FINAL_ONLY,
    }
    return SamplingParams(**plain | settings)


def _stream(prompt: Prompt, sampling: Sampling) -> int:
    name = f"{sampling.seed}/{prompt.text}/{'/'.join(prompt.digests)}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


def _digest(encoded: bytes) -> str:
    return hashlib.sha256(encoded).hexdigest()


def _picture() -> bytes:
    from PIL import Image

    from engine.images import encode_png

    return encode_png(Image.radial_gradient("L").resize((PROBE_PX, PROBE_PX)).convert("RGB"))


def is_failure(output: Any) -> bool:
    """Return whether the engine gave a question up, which vLLM tells as it tells an answer."""
    return not isinstance(output, Exception) and output.outputs[0].finish_reason not in ANSWERED
