"""How fast the stage `generate` and the judge are on vLLM, against the bare engine.

    <python with vLLM> -m tests.bench.generate_speed [--rounds 3] [--rows 600] [--temperature 0]

In turns, with the same pairs and settings, on two engines of one process:

* `bare`: `LLM.generate` of all prompts at once, images and all;
* `chunks`: the same in chunks of 500 rows, as the reference code does, each waiting for its slowest;
* `stage`: the stage `generate`, from pairs on the disk to tasks on the disk, journal included;
* `label`: the judge writes its label as text after a few-shot prompt, without a prefix cache;
* `score`: the judge scores the labels in one prefill, the few-shot prompt shared;
* `shards`: the same in shards of 256, as the stage `filter` asks.

Only the work is timed, not the start of an engine; caches are emptied before each turn. Prints the
median of each ratio of one round, in seconds of the wall and of all processors. The pocket
synthesizer's likeliest answers are of much the same length; above temperature 0 they differ, as
those of large models do, and a chunk waits for its longest.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from engine import images, package_data
from engine.backends import Choices, ModelFiles, Request
from engine.plan.journal import cut
from engine.pocket import captions, facts, judge_items, shapes
from engine.records import Kind, Meta, pair, user
from engine.stages._filtering import SHARD_ROWS

CHUNK = 500
NUM_SEQS = 256
NUM_SHOTS = 8
MAX_NEW = 500
LABELS = (" Yes", " No", " Open")
Times = dict[str, float]


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


def bare_engine(model: str, **settings: Any) -> Any:
    """Start vLLM's own offline engine with the settings that the backend uses."""
    from vllm import LLM

    return LLM(
        str(package_data.pocket_model(model)),
        dtype="float32",
        max_num_seqs=NUM_SEQS,
        enforce_eager=True,
        enable_chunked_prefill=False,
        generation_config="vllm",
        **settings,
    )


def session_of(model: str) -> Any:
    """Open a session as a stage would."""
    from engine.backends.vllm import PLUGIN
    from engine.plan.stage import Machine

    files = ModelFiles(str(package_data.pocket_model(model)))
    return PLUGIN.open(files, PLUGIN.params(max_num_seqs=NUM_SEQS), Machine())


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


def generating(rows: int, rounds: int, temperature: float) -> list[dict[str, Times]]:
    """Time the synthesizer, round after round."""
    with tempfile.TemporaryDirectory() as folder:
        pairs = Pairs(Path(folder), rows)
        engine, session = bare_engine("synthesizer", block_size=32), session_of("synthesizer")
        turns: dict[str, Callable[[], int]] = {
            "bare": lambda: bare(engine, pairs, rows, temperature),
            "stage": lambda: stage(session, pairs, temperature),
            "chunks": lambda: bare(engine, pairs, CHUNK, temperature),
        }
        found = in_turns(turns, rounds, engine, session)
        session.close()
    return found


def judging(rows: int, rounds: int) -> list[dict[str, Times]]:
    """Time the judge, round after round."""
    asked = items(rows)
    engine = bare_engine("judge", enable_prefix_caching=False)
    session = session_of("judge")
    turns: dict[str, Callable[[], int]] = {
        "label": lambda: label(engine, asked),
        "score": lambda: score(session, asked),
        "shards": lambda: sum(score(session, list(some)) for some in cut(asked, SHARD_ROWS)),
    }
    found = in_turns(turns, rounds, engine, session)
    print(f"judge: {session.num_cached_tokens} of {session.num_prompt_tokens} tokens from cache")
    session.close()
    return found


def in_turns(
    turns: dict[str, Callable[[], int]], rounds: int, engine: Any, session: Any
) -> list[dict[str, Times]]:
    """Run turns in changing order, after one round that warms up; print each."""
    import asyncio

    async def forget() -> None:
        core = session._engine.core
        await core.reset_prefix_cache()
        await core.reset_mm_cache()

    found = []
    for number in range(rounds + 1):
        times = {}
        for name in sorted(turns, reverse=bool(number % 2)):
            engine.reset_prefix_cache()
            engine.reset_mm_cache()
            asyncio.run_coroutine_threadsafe(forget(), session._engine.loop).result()
            times[name] = timed(turns[name])
            told = " ".join(f"{key} {value:.2f}" for key, value in times[name].items())
            print(f"round {number} {name}: {told}", flush=True)
        found.append(times)
    return found[1:]


def ratio(found: list[dict[str, Times]], over: str, under: str, key: str) -> float:
    """Return the median over rounds of how many times longer one takes than another."""
    return statistics.median(times[over][key] / times[under][key] for times in found)


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=600)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--only", choices=("generate", "judge"))
    wanted = parser.parse_args()
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    ratios: dict[str, float] = {}

    def tell(found: list[dict[str, Times]], over: str, under: str) -> None:
        for clock in ("wall", "cpu"):
            ratios[f"{over}/{under} {clock}"] = round(ratio(found, over, under, clock), 3)

    if wanted.only != "judge":
        found = generating(wanted.rows, wanted.rounds, wanted.temperature)
        tell(found, "bare", "stage")
        tell(found, "chunks", "stage")
    if wanted.only != "generate":
        found = judging(wanted.rows, wanted.rounds)
        tell(found, "label", "shards")
        tell(found, "score", "shards")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
