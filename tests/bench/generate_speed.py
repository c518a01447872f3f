"""How fast the stage `generate` and the judge are on vLLM, against the bare engine.

    <python with vLLM> -m tests.bench.generate_speed [--rounds 3] [--rows 2000] [--temperature 0] [--seqs 256]

With the same pairs and settings, each in a process of its own and in turns:

* `bare`: `LLM.generate` of all prompts at once, images and all;
* `chunks`: the same in chunks of 500 rows (1.95 batches), as the reference code does, each waiting for its slowest;
* `stage`: the stage `generate`, from pairs on the disk to tasks on the disk, journal included;
* `label`: the judge writes its label as text after a few-shot prompt, without a prefix cache;
* `score`: the judge scores the labels in one prefill, the few-shot prompt shared;
* `shards`: the same in shards of 256, as the stage `filter` asks.

Only the work is timed, not the start of an engine: once to warm up, then twice with empty caches. A
second engine in the process would take from the first though it has nothing to do. Prints the
median of each ratio of one round, in seconds of the wall and of all processors. The pocket
synthesizer's likeliest answers are of much the same length; above temperature 0 they differ, as
those of large models do, and a chunk waits for its longest.

`--only steps` counts what the engine does instead: on a CPU a step takes about as long as it has
answers in work, on a GPU about as long for few as for many, and a loop of chunks has few in work
while it waits.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from engine import images, package_data
from engine.backends import Choices, ModelFiles, Request
from engine.plan.journal import cut
from engine.pocket import captions, facts, judge_items, shapes
from engine.records import Kind, Meta, pair, user
from engine.stages._filtering import SHARD_ROWS

CHUNK, NUM_SEQS = 500, 256  # of the reference code; `--seqs` keeps their proportion
NUM_SHOTS = 8
MAX_NEW = 500
LABELS = (" Yes", " No", " Open")
GENERATING = ("bare", "chunks", "stage")
JUDGING = ("label", "score", "shards")
REPEATS = 2
Times = dict[str, float]


class Load(NamedTuple):
    """How much there is to do, and how many at once."""

    rows: int
    temperature: float
    seqs: int

    @property
    def chunk(self) -> int:
        """Rows of a chunk."""
        return round(self.seqs * CHUNK / NUM_SEQS)


def timed(work: Callable[[], int]) -> Times:
    """Return seconds of the wall and of the processors of all processes, and tokens written."""
    wall, cpu = time.perf_counter(), cpu_s()
    written = work()
    return {"wall": time.perf_counter() - wall, "cpu": cpu_s() - cpu, "tokens": written}


def cpu_s() -> float:
    """Return the processor seconds of this process and all that live below it."""
    import psutil

    me = psutil.Process()
    used = [one.cpu_times() for one in [me, *me.children(recursive=True)]]
    return float(sum(one.user + one.system for one in used))


class Pairs:
    """Pictures with captions, on the disk and as prompts."""

    def __init__(self, folder: Path, count: int) -> None:
        import random

        from tests.stages.talking import rows_artifact

        self.folder = folder
        self.pictures, pairs = [], []
        (folder / "images").mkdir()
        with images.ImageWriter(folder / "images") as writer:
            for index in range(count):
                scene = shapes.scene(91, "speed", index)
                rng = random.Random(index)
                text = captions.caption(facts.renamed_facts(scene, rng), rng, is_scientific=True)
                picture = images.encode_png(shapes.draw(scene))
                self.pictures.append((picture, text))
                pairs.append(pair(writer.add(picture), text, Meta(Kind.PAIR, f"p{index}")))
        self.bank = images.ImageBank([folder / "images"])
        self.artifact = rows_artifact(folder / "pairs", pairs=pairs)

    def prompts(self, first: int, last: int) -> Iterator[dict[str, Any]]:
        """Yield prompts as the bare engine takes them."""
        for picture, caption in self.pictures[first:last]:
            text = f"<|user|><image>Describe the image.<|end|><|assistant|>{caption}<|end|><|user|>"
            yield {"prompt": text, "multi_modal_data": {"image": images.decode(picture)}}


def bare_engine(model: str, seqs: int, **settings: Any) -> Any:
    """Start vLLM's own offline engine with the settings that the backend uses."""
    from vllm import LLM

    return LLM(
        str(package_data.pocket_model(model)),
        dtype="float32",
        max_num_seqs=seqs,
        enforce_eager=True,
        enable_chunked_prefill=False,
        generation_config="vllm",
        **settings,
    )


def session_of(model: str, seqs: int) -> Any:
    """Open a session as a stage would."""
    from engine.backends.vllm import PLUGIN
    from engine.plan.stage import Machine

    files = ModelFiles(str(package_data.pocket_model(model)))
    return PLUGIN.open(files, PLUGIN.params(max_num_seqs=seqs), Machine())


def bare(engine: Any, pairs: Pairs, chunk: int, temperature: float) -> int:
    """Generate `chunk` rows at a time; return the tokens written."""
    from vllm import SamplingParams

    def rules(number: int) -> Any:
        return SamplingParams(
            temperature=temperature,
            seed=number if temperature else None,
            max_tokens=MAX_NEW,
            ignore_eos=True,
            stop=["<|end|><|end|>"],
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
        )

    written = 0
    for first in range(0, len(pairs.pictures), chunk):
        asked = list(pairs.prompts(first, first + chunk))
        wanted = [rules(first + place) for place in range(len(asked))]
        done = engine.generate(asked, wanted, use_tqdm=False)
        written += sum(len(one.outputs[0].token_ids) for one in done)
    return written


def stage(session: Any, pairs: Pairs, temperature: float) -> int:
    """Run the stage `generate` on an open session."""
    from engine.artifacts import Outputs
    from engine.backends.vllm import PLUGIN
    from engine.plugin import ModelUse
    from engine.stages._models import LazySession
    from engine.stages.generate import Params, write_tasks
    from tests.stages.running import Bench
    from tests.stages.talking import prompt_texts

    params = Params(
        generator=ModelUse(model="m"),
        prompt="synthesize@1",
        max_new_tokens=MAX_NEW,
        temperature=temperature,
        top_p=1.0,
        answer_temperature=None,
        num_tasks=1,
        num_samples=1,
        task_types={},
        row_set="pairs",
    )
    with tempfile.TemporaryDirectory(dir=pairs.folder) as folder:
        outputs = Outputs(Path(folder) / "out")
        outputs.path.mkdir()
        tools = Bench(Path(folder), prompts=prompt_texts()).tools("scratch")
        lazy = LazySession(lambda: session, lambda: PLUGIN.is_continuous)
        write_tasks(pairs.artifact, pairs.bank, lazy, params, outputs, tools)
        outputs.counts()
    return 0


def items(count: int) -> list[Request]:
    """Return what the judge is asked, each after the same examples."""

    def shown(item: judge_items.JudgeItem) -> str:
        text = f"Question: {item.instruction}\nInformative answer: {item.informative}\n"
        return f"{text}Precise answer: {item.precise}\nConsistent:"

    shots = [judge_items.judge_item(91, "shots", number) for number in range(NUM_SHOTS)]
    before = "".join(f"{shown(one)} {one.label}\n\n" for one in shots)
    found = [judge_items.judge_item(91, "speed", number) for number in range(count)]
    return [Request((user(before + shown(one)),), is_raw=True) for one in found]


def label(engine: Any, asked: list[Request]) -> int:
    """Let the judge write labels, a few tokens each, as the reference code does."""
    from vllm import SamplingParams

    rules = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    done = engine.generate([one.turns[0].text for one in asked], rules, use_tqdm=False)
    return sum(len(one.outputs[0].token_ids) for one in done)


def score(session: Any, asked: list[Request]) -> int:
    """Let the judge score the labels."""
    return len(session.score([Choices(one, LABELS) for one in asked]))


Turn = tuple[Callable[[], int], Callable[[], None]]  # the work, and what empties the caches


@contextmanager
def opened(name: str, load: Load) -> Iterator[Turn]:
    """Open the engine of one turn, and close it."""
    model = "synthesizer" if name in GENERATING else "judge"
    is_session = name in ("stage", "score", "shards")
    settings: dict[str, Any] = {}
    if not is_session:
        settings = {"block_size": 32} if name in GENERATING else {"enable_prefix_caching": False}
    opener = session_of if is_session else bare_engine
    engine = opener(model, load.seqs, **settings)
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs(Path(folder), load.rows if name in GENERATING else 0)
        asked = [] if name in GENERATING else items(load.rows)
        works: dict[str, Callable[[], int]] = {
            "bare": lambda: bare(engine, pairs, load.rows, load.temperature),
            "chunks": lambda: bare(engine, pairs, load.chunk, load.temperature),
            "stage": lambda: stage(engine, pairs, load.temperature),
            "label": lambda: label(engine, asked),
            "score": lambda: score(engine, asked),
            "shards": lambda: sum(score(engine, list(some)) for some in cut(asked, SHARD_ROWS)),
        }
        yield works[name], (lambda: forget(engine, is_session=is_session))
    if is_session:
        engine.close()
    else:
        engine.llm_engine.engine_core.shutdown()  # or the process waits for it at its end


def forget(engine: Any, *, is_session: bool) -> None:
    """Empty the caches of an engine."""
    import asyncio

    async def empty() -> None:
        core = engine._engine.core
        await core.reset_prefix_cache()
        await core.reset_mm_cache()

    if is_session:
        asyncio.run_coroutine_threadsafe(empty(), engine._engine.loop).result()
    else:
        engine.reset_prefix_cache()
        engine.reset_mm_cache()


def turn(name: str, load: Load) -> Times:
    """Time one turn in this process: the mean of a few, after one that warms up."""
    found = []
    with opened(name, load) as (work, empty):
        for _ in range(1 + REPEATS):
            empty()
            found.append(timed(work))
    return {key: statistics.mean(one[key] for one in found[1:]) for key in found[0]}


def in_turns(names: Sequence[str], load: Load, rounds: int) -> list[dict[str, Times]]:
    """Time turns in changing order, each in a process of its own; print each."""
    found = []
    for number in range(rounds):
        times = {}
        for name in sorted(names, reverse=bool(number % 2)):
            words = ["--turn", name, "--rows", load.rows, "--seqs", load.seqs]
            words += ["--temperature", load.temperature]
            done = subprocess.run(
                [sys.executable, "-m", "tests.bench.generate_speed", *map(str, words)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            times[name] = json.loads(done.stdout.splitlines()[-1])
            told = " ".join(f"{key} {value:.2f}" for key, value in times[name].items())
            print(f"round {number} {name}: {told}", flush=True)
        found.append(times)
    return found


def counting(load: Load) -> dict[str, float]:
    """Return how many times the steps of the stage the bare engine takes, at once and in chunks."""
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs(Path(folder), load.rows)
        engine = bare_engine("synthesizer", load.seqs, block_size=32, disable_log_stats=False)
        for name, chunk in (("bare", load.rows), ("chunks", load.chunk)):
            before = num_steps()
            bare(engine, pairs, chunk, load.temperature)
            counts[name] = num_steps() - before
        engine.llm_engine.engine_core.shutdown()
        with counted():
            session = session_of("synthesizer", load.seqs)
        before = num_steps()
        stage(session, pairs, load.temperature)
        counts["stage"] = num_steps() - before
        session.close()
    print(f"steps: {counts}")
    return {
        f"{name}/stage steps": round(counts[name] / counts["stage"], 3)
        for name in ("bare", "chunks")
    }


@contextmanager
def counted() -> Iterator[None]:
    """Let the engine of a session count its steps, which it leaves out where nobody looks."""
    from vllm.v1.engine.async_llm import AsyncLLM

    quiet = AsyncLLM.from_vllm_config
    AsyncLLM.from_vllm_config = lambda config, **_: quiet(config, disable_log_stats=False)
    try:
        yield
    finally:
        AsyncLLM.from_vllm_config = quiet


def num_steps() -> int:
    """Return how many steps the engines of this process have taken, by their own count."""
    from vllm.v1.metrics.reader import get_metrics_snapshot

    counts = [m.count for m in get_metrics_snapshot() if m.name == "vllm:iteration_tokens_total"]
    return int(sum(counts))


def ratio(found: list[dict[str, Times]], over: str, under: str, key: str) -> float:
    """Return the median over rounds of how many times longer one takes than another."""
    return statistics.median(times[over][key] / times[under][key] for times in found)


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--only", choices=("generate", "judge", "steps"))
    parser.add_argument("--turn", choices=(*GENERATING, *JUDGING), help=argparse.SUPPRESS)
    parser.add_argument("--seqs", type=int, default=NUM_SEQS, help="answers in work at once")
    wanted = parser.parse_args()
    load = Load(wanted.rows, wanted.temperature, wanted.seqs)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    if wanted.turn:
        print(json.dumps(turn(wanted.turn, load)))
        return
    ratios: dict[str, float] = {}

    def tell(found: list[dict[str, Times]], over: str, under: str) -> None:
        for clock in ("wall", "cpu"):
            ratios[f"{over}/{under} {clock}"] = round(ratio(found, over, under, clock), 3)

    if wanted.only in (None, "generate"):
        found = in_turns(GENERATING, load, wanted.rounds)
        tell(found, "bare", "stage")
        tell(found, "chunks", "stage")
    if wanted.only in (None, "steps"):
        ratios |= counting(load)
    if wanted.only in (None, "judge"):
        found = in_turns(JUDGING, load, wanted.rounds)
        tell(found, "label", "shards")
        tell(found, "score", "shards")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
