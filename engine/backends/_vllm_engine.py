"""Starts vLLM's engine, and talks to it from a thread with an event loop of its own.

The engine is the one that serves: requests come and go at any time, copies of the model (data
parallel) share them by load, and each copy works in processes of its own, so that this process only
prepares prompts and reads answers.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from engine.backends import ModelFiles
from engine.backends._vllm_adapter import Adapter, read_adapter
from engine.backends.vllm import Params
from engine.diagnostics import EngineDiedError, StageError
from engine.models._loading import ModelKit
from engine.models._processors import PROCESSORS
from engine.plan.stage import Machine

CPU_BLOCK_TOKENS = 32  # of the key-value cache; vLLM's own 128 would hardly share a short prefix
IMAGE_CACHE_GIB = 1  # of prepared images, on either side; vLLM's own is 4
IN_HAND_GIB = 4  # of prepared images that are asked about, for each copy of the model
AS_MEMORY_ALLOWS = -1  # tokens: what the model holds, or fewer if one request would not fit
DIED = "vLLM's engine died; its own log says why"
CLOSE_TIMEOUT_S = 10.0
_Started = tuple[Any, asyncio.AbstractEventLoop, threading.Thread]
_USE = "use the backend `transformers` for it"


@dataclass(slots=True)
class Engine:
    """A running engine."""

    core: Any  # vllm.v1.engine.async_llm.AsyncLLM
    loop: asyncio.AbstractEventLoop
    thread: threading.Thread
    model_tokens: int  # that the model holds, or the recipe allows
    max_tokens: int  # of those, for which there is memory
    max_in_hand: int  # questions
    max_bytes: int  # of prepared pictures in hand, beside the last one
    refill: int  # how many of them must be answered before more are put
    declared_eos: Any
    adapter: Adapter | None
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    def ask(
        self,
        rendered: Any,
        rules: Any,
        done: Callable[[Any], None],
        *,
        priority: int = 0,
        uses_adapter: bool = True,
    ) -> None:
        """Put a rendered prompt; `done` gets the output or an error, in the loop's thread.

        It is called once in any case, also for what is taken back. The prompt is not kept.
        """
        how: dict[str, Any] = {"request_id": str(next(self._numbers)), "priority": priority}
        if self.adapter and uses_adapter:
            how["lora_request"] = self.adapter.request()

        def begin() -> None:
            task = self.loop.create_task(self._output(rendered, rules, how))
            self._tasks.add(task)
            task.add_done_callback(lambda ended: self._end(ended, done))

        self.loop.call_soon_threadsafe(begin)

    def ask_now(self, rendered: Any, rules: Any, *, uses_adapter: bool = True) -> Any:
        """Return the output of one prompt. Raise what the engine raised."""
        import queue

        found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.ask(rendered, rules, found.put, uses_adapter=uses_adapter)
        output = found.get()
        if isinstance(output, Exception):
            raise output
        return output

    def load_adapter(self) -> list[str]:
        """Load the adapter; return its modules that vLLM ignores. Raise StageError if it cannot."""
        assert self.adapter is not None
        request = self.adapter.request()

        async def load() -> list[list[str]]:
            await self.core.add_lora(request)
            found: list[list[str]] = await self.core.collective_rpc("ignored_adapter_modules")
            return found

        try:
            told = asyncio.run_coroutine_threadsafe(load(), self.loop).result()
        except Exception as error:  # vLLM hands on what its worker raised as a bare Exception
            raise StageError(
                f"vLLM cannot load the adapter `{self.adapter.folder}`: {_first_line(error)}"
            ) from error
        return sorted({name for names in told for name in names})

    def drop_all(self) -> None:
        """Take back what is in hand."""

        async def drop() -> None:
            left = list(self._tasks)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

        if self._tasks and self.loop.is_running():
            asyncio.run_coroutine_threadsafe(drop(), self.loop).result(CLOSE_TIMEOUT_S)

    def close(self) -> None:
        """End the engine's processes and the loop."""
        if not self.thread.is_alive():
            return
        asyncio.run_coroutine_threadsafe(self._shut(), self.loop).result(CLOSE_TIMEOUT_S * 3)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(CLOSE_TIMEOUT_S)
        self.core = None
        gc.unfreeze()
        gc.collect()  # its finaliser would fail at the end of the process

    async def _shut(self) -> None:
        self.core.shutdown(timeout=CLOSE_TIMEOUT_S)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _output(self, rendered: Any, rules: Any, how: dict[str, Any]) -> Any:
        # Not `generate`, which holds a prompt's pictures until the answer is there.
        adding = self.core.add_request(prompt=rendered, params=rules, **how)
        del rendered
        queue = await adding
        try:
            while not (output := await queue.get()).finished:
                pass
        except asyncio.CancelledError:
            await self.core.abort(queue.request_id, internal=True)
            raise
        return output

    def _end(self, task: asyncio.Task[Any], done: Callable[[Any], None]) -> None:
        self._tasks.discard(task)
        if task.cancelled():  # whoever asked is gone, or the engine is
            done(EngineDiedError(DIED))
        else:  # whatever error it is, it belongs to whoever asked
            done(task.exception() or task.result())


def start(kit: ModelKit, files: ModelFiles, params: Params, machine: Machine) -> Engine:
    """Start an engine. Raise StageError if vLLM cannot run the model."""
    place, revision = files.adapter, files.adapter_revision
    if kit.family.not_in_vllm:
        raise StageError(
            f"vLLM does not answer as `{kit.path}`: {kit.family.not_in_vllm}", hint=_USE
        )
    adapter = read_adapter(kit, place, revision) if place else None
    settings = _settings(kit, files, params, machine) | (adapter.settings() if adapter else {})
    config = _config(kit, settings)
    if machine.device == "cpu" and config.model_config.is_mm_prefix_lm:
        why = "on a CPU, vLLM lets the tokens of an image see only those before them"
        raise StageError(f"vLLM does not answer as `{kit.path}`: {why}", hint=_USE)
    max_in_hand, refill = _supply(params, machine)
    model_tokens = _max_tokens(config, kit)
    # The engine is no local variable here: vLLM keeps an error whose traceback holds this frame.
    return Engine(
        *_frozen(_started(config, files.path)),
        model_tokens=model_tokens,
        max_tokens=_max_tokens(config, kit),  # the start may have lowered it
        max_in_hand=max_in_hand,
        max_bytes=IN_HAND_GIB * 2**30 * params.data_parallel_size,
        refill=refill,
        declared_eos=_declared_eos(files),
        adapter=adapter,
    )


def _max_tokens(config: Any, kit: ModelKit) -> int:
    return min(int(config.model_config.max_model_len), kit.context_tokens)


def _frozen(started: _Started) -> _Started:
    """Keep the interpreter from looking through all that is loaded for garbage, again and again."""
    gc.collect()
    gc.freeze()
    return started


def _supply(params: Params, machine: Machine) -> tuple[int, int]:
    """Return how many questions are in hand at most, and how many must go before more come.

    A GPU gets one batch in work, and one and more waiting, so that no copy of the model runs dry.
    On a CPU, where each step that takes in a prompt is dear, prompts come in groups, and few wait
    (tests/bench/README.md).
    """
    seqs, copies = params.max_num_seqs, params.data_parallel_size
    if machine.device == "cpu":
        return max(16, seqs * 5 // 4) * copies, max(1, seqs // 8)
    return max(16, seqs * 5 // 2) * copies, 1


def _started(config: Any, path: str) -> _Started:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="vllm", daemon=True)
    thread.start()

    async def begin() -> Any:
        from vllm.v1.engine.async_llm import AsyncLLM

        core = AsyncLLM.from_vllm_config(config, disable_log_stats=True)
        # It prepares a first image in a thread of its own, which may go on; two at a time would
        # spoil the cache of images. This waits for it.
        await core.reset_mm_cache()
        return core

    try:
        with _one_process(config):
            return asyncio.run_coroutine_threadsafe(begin(), loop).result(), loop, thread
    except (RuntimeError, ValueError, OSError, MemoryError) as error:
        loop.call_soon_threadsafe(loop.stop)
        raise StageError(
            f"vLLM cannot start `{path}`: {_first_line(error)}",
            hint="its log is in the node's log; too little memory is the usual cause: set "
            "`max_model_len` or `gpu_memory_utilization` of the backend",
        ) from error


@contextmanager
def _one_process(config: Any) -> Iterator[None]:
    """Let the process that plans the steps of the only model on a CPU take them too.

    vLLM has two, because the threads of OpenMP are bound by the environment that a process starts
    with; but one that waits for the other keeps a core busy with that. The first one gets that
    environment here.
    """
    parallel = config.parallel_config
    if config.device_config.device_type != "cpu" or parallel.world_size_across_dp > 1:
        yield
        return
    try:  # only CPUs need it
        from vllm.utils.ompmultiprocessing import OMPProcessManager
    except ImportError:  # it is no promise of vLLM's: another release has two processes
        yield
        return
    parallel.distributed_executor_backend = "uni"
    with OMPProcessManager(config).configure_omp_envs(rank=0, local_rank=0):
        yield


def _settings(kit: ModelKit, files: ModelFiles, params: Params, machine: Machine) -> dict[str, Any]:
    is_cpu = machine.device == "cpu"
    is_quantised = params.quantization or getattr(kit.config, "quantization_config", None)
    dtype = params.dtype
    if dtype == "auto" and not is_quantised:
        dtype = "float32" if is_cpu else "bfloat16"
    return {
        "model": files.path,
        "revision": files.revision,
        "trust_remote_code": files.trust_remote_code,
        "dtype": dtype,
        "quantization": params.quantization,
        "max_model_len": _max_model_len(kit, params, machine),
        "max_num_seqs": params.max_num_seqs,
        "gpu_memory_utilization": params.gpu_memory_utilization,
        "tensor_parallel_size": params.tensor_parallel_size,
        "data_parallel_size": params.data_parallel_size,
        "enable_prefix_caching": True,
        "enforce_eager": is_cpu,
        "generation_config": "vllm",
        "mm_processor_cache_gb": IMAGE_CACHE_GIB,
        "scheduling_policy": "priority",
        # A model may fill its answer with the white space that a schema allows between tokens.
        "structured_outputs_config": {"backend": "xgrammar", "disable_any_whitespace": True},
        # A prompt read in pieces rewinds its sampling seed, which torch cannot do on a CPU.
        **({"block_size": CPU_BLOCK_TOKENS, "enable_chunked_prefill": False} if is_cpu else {}),
        **(_image_settings(kit, params) if kit.family.has_vision else {}),
    }


def _max_model_len(kit: ModelKit, params: Params, machine: Machine) -> int:
    if params.max_model_len is None and machine.device == "cuda":
        return AS_MEMORY_ALLOWS
    return min(params.max_model_len or kit.context_tokens, kit.context_tokens)


def _image_settings(kit: ModelKit, params: Params) -> dict[str, Any]:
    """Return how images are prepared: as everywhere in this engine, where vLLM can.

    Of families that see videos it opens a processor that exists with torchvision alone; its
    resizing differs by a shade. It would keep memory for videos and sounds that nobody shows.
    """
    limit = {"limit_mm_per_prompt": {"image": params.max_images, "video": 0, "audio": 0}}
    if kit.config.model_type in PROCESSORS:
        return limit
    return {**limit, "mm_processor_kwargs": {"backend": "pil"}}


def _config(kit: ModelKit, settings: dict[str, Any]) -> Any:
    """Return vLLM's config. Raise StageError if it has no such model, or refuses a setting."""
    from vllm import AsyncEngineArgs
    from vllm.model_executor.models import ModelRegistry
    from vllm.usage.usage_lib import UsageContext

    try:
        return AsyncEngineArgs(**settings).create_engine_config(UsageContext.LLM_CLASS)
    except (ValueError, RuntimeError, NotImplementedError, ImportError) as error:
        wanted = list(getattr(kit.config, "architectures", None) or [])
        if not set(wanted) & set(ModelRegistry.get_supported_archs()):
            name = wanted[0] if wanted else kit.config.model_type
            raise StageError(
                f"vLLM has no model `{name}`, which `{kit.path}` is",
                hint=f"{_USE}, or a newer vLLM",
            ) from error
        raise StageError(f"vLLM refuses `{kit.path}`: {_first_line(error)}") from error


def _declared_eos(files: ModelFiles) -> Any:
    from transformers import GenerationConfig

    try:
        found = GenerationConfig.from_pretrained(files.path, revision=files.revision)
    except OSError:
        return None
    return found.eos_token_id


def _first_line(error: BaseException) -> str:
    """Return the line of an error that says what is wrong; pydantic puts a count before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and "validation error" in lines[0]:
        return lines[1].removeprefix("Value error, ")
    return lines[0] if lines else type(error).__name__


def as_died(error: BaseException) -> EngineDiedError:
    """Return the error that lets the runtime start the node again."""
    found = EngineDiedError(DIED)
    found.__cause__ = error
    return found
