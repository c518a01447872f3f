"""How fast the stages `generate` and `filter` are on vLLM, against the bare engine.

    <python with vLLM> -m tests.bench.generate_speed [--rounds 4] [--rows 2000] [--temperature 1]

With the same pairs and settings, each in a process of its own:

* `bare`: `LLM.generate` of all prompts at once, their pictures opened before the clock starts;
* `chunks`: the loop of the reference code: 500 rows at a time (1.95 batches), their pictures opened
  before the call and once more after it, their rows written, and then the next;
* `stage`: the stage `generate`, from pairs on the disk to tasks on the disk, journal included;
* `label`: the judge writes its label as text after a few-shot prompt, without a prefix cache;
* `score`: the judge scores the labels in one prefill, the few-shot prompt shared;
* `filter`: the stage `filter`, which does so, from tasks on the disk to tasks on the disk.

Only the work is timed, with empty caches, not the start of an engine. They work in turns, and those
who wait are stopped, since a machine's pace changes from minute to minute. Prints how many times
longer one takes than another by the wall: the median of all rounds, and each.

Pictures are as large as the samples that come with the reference code. The pocket synthesizer's
likeliest answers are of much the same length; above temperature 0 they differ, as those of large
models do, and a chunk waits for its longest.

`--only steps` counts what the engine does instead: on a CPU a step takes about as long as it has
answers in work, on a GPU about as long for few as for many, and a loop of chunks has few in work
while it waits.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from engine import images, package_data, prompts
from engine.backends import Choices, ModelFiles, Request
from engine.plan.journal import cut
from engine.pocket import captions, facts, judge_items, shapes
from engine.records import Kind, Meta, Record, assistant, make_record, pair, user

CHUNK, NUM_SEQS = 500, 256  # of the reference code; `--seqs` keeps their proportion
NUM_SHOTS = 8
MAX_NEW = 500
LABELS = (" Yes", " No", " Open")
SHOWN = (
    "Question: {instruction}\nInformative answer: {informative}\nPrecise answer: {precise}\n"
    "Consistent:"
)
GENERATING = ("bare", "chunks", "stage")
JUDGING = ("label", "score", "filter")
SIZES = (  # of the 24 samples of the reference code, in pixels
    *((200, 133), (250, 250), (250, 250), (282, 188), (300, 200), *[(328, 246)] * 5),
    *((410, 273), (410, 273), (410, 274), (410, 307), (410, 316), (410, 329), (610, 458)),
    *((606, 808), (860, 573), (748, 997), (960, 960), (960, 960), (1271, 960), (1500, 1034)),
)
GRAIN = 3.0  # of 255: files of 55 kB in the mean; the samples have 52
TOOK = "seconds:"  # before what a process that takes turns tells
Work = Callable[[], None]


class Load(NamedTuple):
    """How much there is to do, and how many at once."""

    rows: int
    temperature: float
    seqs: int

    @property
    def chunk(self) -> int:
        """Rows of a chunk."""
        return round(self.seqs * CHUNK / NUM_SEQS)


class Pairs:
    """Pictures with captions, on the disk and as prompts."""

    def __init__(self, folder: Path, count: int) -> None:
        import random

        from tests.stages.talking import rows_artifact

        self.folder = folder
        self.captions, pairs = [], []
        (folder / "images").mkdir()
        with images.ImageWriter(folder / "images") as writer:
            for index in range(count):
                scene = shapes.scene(91, "speed", index)
                rng = random.Random(index)
                text = captions.caption(facts.renamed_facts(scene, rng), rng, is_scientific=True)
                picture = _photo(shapes.draw(scene).resize(SIZES[index % len(SIZES)]), index)
                self.file(index).write_bytes(picture)
                self.captions.append(text)
                pairs.append(pair(writer.add(picture), text, Meta(Kind.PAIR, f"p{index}")))
        self.bank = images.ImageBank([folder / "images"])
        self.artifact = rows_artifact(folder / "pairs", pairs=pairs)

    def file(self, index: int) -> Path:
        """Return the place of a picture."""
        return self.folder / f"{index}.jpg"

    def prompts(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Open pictures, and return prompts as the bare engine takes them."""
        made: list[dict[str, Any]] = []
        for number in numbers:
            caption = self.captions[number]
            text = f"<|user|><image>Describe the image.<|end|><|assistant|>{caption}<|end|><|user|>"
            picture = images.decode(self.file(number).read_bytes())
            made.append({"prompt": text, "multi_modal_data": {"image": picture}})
        return made


def _photo(picture: Any, seed: int) -> bytes:
    """Return a JPEG file with as much grain as makes it as large as a photograph's."""
    import numpy as np
    from PIL import Image

    pixels = np.asarray(picture, dtype=np.float32)
    grain = np.random.default_rng(seed).normal(0, GRAIN, (*pixels.shape[:2], 1))
    written = io.BytesIO()
    Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(
        written, "JPEG", quality=90
    )
    return written.getvalue()


def bare_engine(model: str, seqs: int, **settings: Any) -> Any:
    """Start vLLM's own offline engine, with the backend's settings but vLLM's own processes."""
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


def asked_rules(number: int, temperature: float) -> Any:
    """Return how the stage wants an answer drawn."""
    from vllm import SamplingParams

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


def bare(engine: Any, prompts: list[dict[str, Any]], temperature: float) -> None:
    """Generate everything at once."""
    rules = [asked_rules(number, temperature) for number in range(len(prompts))]
    engine.generate(prompts, rules, use_tqdm=False)


def chunks(engine: Any, pairs: Pairs, load: Load) -> None:
    """Generate a chunk at a time and write it, as the reference code does."""
    with (pairs.folder / "written.jsonl").open("w") as file:
        for rows in cut(range(load.rows), load.chunk):
            rules = [asked_rules(number, load.temperature) for number in rows]
            done = engine.generate(pairs.prompts(rows), rules, use_tqdm=False)
            for asked, one in zip(pairs.prompts(rows), done, strict=True):
                row = {"prompt": asked["prompt"], "pred": one.outputs[0].text}
                file.write(json.dumps(row) + "\n")


def stage(session: Any, pairs: Pairs, temperature: float) -> None:
    """Run the stage `generate` on an open session."""
    from engine.plugin import ModelUse
    from engine.stages.generate import Params, write_tasks
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
    with workplace(pairs.folder, prompt_texts()) as (outputs, tools):
        write_tasks(pairs.artifact, pairs.bank, lazy(session), params, outputs, tools)


@contextmanager
def workplace(folder: Path, prompts: dict[str, str]) -> Iterator[tuple[Any, Any]]:
    """Give a stage its outputs and tools, in a folder that is gone afterwards."""
    from engine.artifacts import Outputs
    from tests.stages.running import Bench

    with tempfile.TemporaryDirectory(dir=folder) as place:
        outputs = Outputs(Path(place) / "out")
        outputs.path.mkdir()
        yield outputs, Bench(Path(place), prompts=prompts).tools("scratch")
        outputs.counts()


def lazy(session: Any) -> Any:
    """Return an open session as stages hold it."""
    from engine.backends.vllm import PLUGIN
    from engine.stages._models import LazySession

    return LazySession(lambda: session, lambda: PLUGIN.is_continuous)


class Items:
    """Tasks to judge, on the disk and as prompts, each after the same examples."""

    def __init__(self, folder: Path, count: int) -> None:
        from tests.stages.talking import image_bank, rows_artifact

        shots = [judge_items.judge_item(91, "shots", number) for number in range(NUM_SHOTS)]
        told = [asdict(one) for one in shots]
        self.template = "".join(f"{SHOWN.format(**one)} {one['label']}\n\n" for one in told)
        self.template += SHOWN.replace("{", "{{").replace("}", "}}")
        self.folder = folder
        self.found = [judge_items.judge_item(91, "speed", number) for number in range(count)]
        self.artifact = rows_artifact(
            folder / "tasks", tasks=[self._task(number) for number in range(count)]
        )
        image_bank(self.artifact.path / "images", 1)

    def _task(self, number: int) -> Record:
        item = self.found[number]
        turns = (
            user(item.instruction),
            assistant(item.informative, style="informative"),
            assistant(item.precise, style="precise"),
        )
        return make_record((), turns, Meta(Kind.TASK, f"t{number}"))

    def requests(self) -> list[Request]:
        """Return what the judge is asked."""
        texts = [prompts.render(self.template, **asdict(one)) for one in self.found]
        return [Request((user(text),), is_raw=True) for text in texts]


def judging(session: Any, items: Items) -> None:
    """Run the stage `filter` on an open session."""
    from engine.plugin import Use
    from engine.stages._models import Models
    from engine.stages.filter import Params, filter_tasks

    params = Params(filters=(Use("consistency", 2, {"judge": {"model": "m"}}),))
    models = Models(lambda use: lazy(session))
    with workplace(items.folder, {"consistency@2": items.template}) as (outputs, tools):
        filter_tasks(items.artifact, items.artifact, models, params, outputs, tools)


def label(engine: Any, asked: list[Request]) -> None:
    """Let the judge write labels, a few tokens each, as the reference code does."""
    from vllm import SamplingParams

    rules = SamplingParams(temperature=0.0, max_tokens=8, ignore_eos=True)
    engine.generate([one.turns[0].text for one in asked], rules, use_tqdm=False)


def score(session: Any, asked: list[Request]) -> None:
    """Let the judge score the labels, all in one call."""
    session.score([Choices(one, LABELS) for one in asked])


@contextmanager
def opened(name: str, load: Load) -> Iterator[tuple[Work, Work]]:
    """Open the engine of one that takes turns; give its work, and what empties the caches."""
    model = "synthesizer" if name in GENERATING else "judge"
    is_session = name in ("stage", "score", "filter")
    settings: dict[str, Any] = {}
    if not is_session:
        settings = {"block_size": 32} if name in GENERATING else {"enable_prefix_caching": False}
    opener = session_of if is_session else bare_engine
    engine = opener(model, load.seqs, **settings)
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs(Path(folder), load.rows if name in GENERATING else 0)
        opened_all = pairs.prompts(range(load.rows)) if name == "bare" else []
        items = Items(Path(folder), load.rows if name in JUDGING else 0)
        asked = items.requests()
        works: dict[str, Work] = {
            "bare": lambda: bare(engine, opened_all, load.temperature),
            "chunks": lambda: chunks(engine, pairs, load),
            "stage": lambda: stage(engine, pairs, load.temperature),
            "label": lambda: label(engine, asked),
            "score": lambda: score(engine, asked),
            "filter": lambda: judging(engine, items),
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


def take_turns(name: str, load: Load) -> None:
    """Work once to warm up, and then at each line that comes; print the seconds it took."""
    with opened(name, load) as (work, empty):
        for _ in chain([""], sys.stdin):
            empty()
            start = time.perf_counter()
            work()
            print(f"{TOOK} {time.perf_counter() - start}", flush=True)


class Player:
    """A process that takes turns, and is stopped between them with all that it started."""

    def __init__(self, name: str, load: Load) -> None:
        words = ["--turn", name, "--rows", load.rows, "--seqs", load.seqs]
        words += ["--temperature", load.temperature]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.generate_speed", *map(str, words)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def turn(self) -> float:
        """Work once; return the seconds it took."""
        os.killpg(self.process.pid, signal.SIGCONT)
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        return self.finish()

    def finish(self) -> float:
        """Wait for the end of a turn, the first of which warms up; return the seconds it took."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(TOOK):
                os.killpg(self.process.pid, signal.SIGSTOP)
                return float(line.removeprefix(TOOK))
        raise SystemExit("the process that takes turns ended; its own message says why")

    def close(self) -> None:
        """End the process and all that it started."""
        os.killpg(self.process.pid, signal.SIGKILL)


def in_turns(names: Sequence[str], load: Load, rounds: int) -> list[dict[str, float]]:
    """Let each work once a round, in changing order; print and return the seconds of each."""
    found = []
    with ExitStack() as stack:
        players = {}
        for name in names:
            players[name] = Player(name, load)
            stack.callback(players[name].close)
            players[name].finish()
        for number in range(rounds):
            order = sorted(names, reverse=bool(number % 2))
            found.append({name: players[name].turn() for name in order})
            told = " ".join(f"{name} {found[-1][name]:.2f}" for name in names)
            print(f"round {number}: {told}", flush=True)
    return found


def counting(load: Load) -> dict[str, float]:
    """Return how many times the steps of the stage the bare engine takes, at once and in chunks."""
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs(Path(folder), load.rows)
        engine = bare_engine("synthesizer", load.seqs, block_size=32, disable_log_stats=False)
        works: dict[str, Work] = {
            "bare": lambda: bare(engine, pairs.prompts(range(load.rows)), load.temperature),
            "chunks": lambda: chunks(engine, pairs, load),
        }
        for name, work in works.items():
            before = num_steps()
            work()
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


def ratios(found: list[dict[str, float]], over: str, under: str) -> dict[str, list[float]]:
    """Return how many times longer one takes than another: the median first, then each round."""
    each = [times[over] / times[under] for times in found]
    return {f"{over}/{under}": [round(one, 3) for one in (statistics.median(each), *each)]}


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--only", choices=("generate", "judge", "steps"))
    parser.add_argument("--turn", choices=(*GENERATING, *JUDGING), help=argparse.SUPPRESS)
    parser.add_argument("--seqs", type=int, default=NUM_SEQS, help="answers in work at once")
    wanted = parser.parse_args()
    load = Load(wanted.rows, wanted.temperature, wanted.seqs)
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as in the process of every stage
    if wanted.turn:
        take_turns(wanted.turn, load)
        return
    told: dict[str, Any] = {}
    if wanted.only in (None, "generate"):
        found = in_turns(GENERATING, load, wanted.rounds)
        told |= ratios(found, "bare", "stage") | ratios(found, "chunks", "stage")
    if wanted.only in (None, "steps"):
        told |= counting(load)
    if wanted.only in (None, "judge"):
        found = in_turns(JUDGING, load, wanted.rounds)
        told |= ratios(found, "label", "filter") | ratios(found, "score", "filter")
    print(json.dumps(told))


if __name__ == "__main__":
    main()
