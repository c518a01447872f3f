"""How fast the backend `transformers` is beside a plain loop over the same model.

    python -m tests.bench.transformers_speed [--rounds 3] [--rows 96]

The loop is what one writes with transformers alone: batches of fixed size in order of arrival, each
until its slowest row is done. The judge's loop writes the label, and reads its examples every time.
Both sides take turns in one process, on one thread; ratios are what counts.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.backends import Choices, ModelFiles, Request, Sampling
from engine.backends.transformers import PLUGIN, Params
from engine.plan.stage import Machine
from engine.prompts import render
from engine.records import user
from tests.models import tiny

BATCH = 16
TEMPLATE = Path(__file__).parents[2] / "prompt_templates/consistency/v1.j2"


def main() -> None:
    """Measure both, and print ratios."""
    import torch

    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=96)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as work:
        session = opened(Path(work))
        asked = mixed(args.rows)
        show("generate", args.rounds, *generating(session, asked))
        show("judge", args.rounds, *judging(session, args.rows))
        for times in (1, 4):
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            session.generate(mixed(args.rows * times), Sampling(64))
            after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(
                f"memory: {args.rows * times} rows raise the peak by {(after - before) / 1024:.0f} MiB"
            )


def opened(folder: Path) -> Any:
    """Open a random llama of four layers that can hold a judge's prompt byte by byte."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = tiny.tokenizer()
    tokens.model_max_length = 4096
    config = tiny.llama_text(tokens, width=128, layers=4) | {"max_position_embeddings": 4096}
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**config)).save_pretrained(folder)
    tokens.save_pretrained(folder)
    return PLUGIN.open(ModelFiles(str(folder)), Params(batch_size=BATCH), Machine())


def mixed(num: int) -> list[Request]:
    """Return prompts of mixed lengths, from ten to four hundred tokens."""
    rng = random.Random(1)
    return [
        Request((user("".join(rng.choices("abcdefgh ", k=int(10 * 40 ** rng.random())))),))
        for _ in range(num)
    ]


def generating(session: Any, asked: list[Request]) -> tuple[Callable, Callable]:
    """Return the session and the loop on the same requests; answers end at different lengths."""
    # Random weights never end by themselves; a few tokens more that end make lengths mixed.
    ends = tuple(range(7, 7 + 6))
    session._eos_ids = (*session._eos_ids, *ends)

    def loop() -> Any:
        import torch
        from transformers import GenerationConfig

        done = []
        prompts = list(session._prompts(asked, Sampling(128), {}).values())
        for first in range(0, len(prompts), BATCH):
            some = prompts[first : first + BATCH]
            batch = session._batch(some)
            config = GenerationConfig(
                max_new_tokens=128,
                do_sample=False,
                eos_token_id=list(session._ending(some[0].request).token_ids),
                pad_token_id=session._kit.pad_id,
            )
            with torch.inference_mode():
                made = session._model.generate(**batch, generation_config=config)
            rows = made[:, batch["input_ids"].shape[1] :].tolist()
            ending = session._ending(some[0].request)
            done += [session._completion(p, r, ending) for p, r in zip(some, rows, strict=True)]
        return done

    return lambda: session.generate(asked, Sampling(128)), loop


def judging(session: Any, num: int) -> tuple[Callable, Callable]:
    """Return scoring by the session, and writing the label with everything read every time."""
    template = TEMPLATE.read_text(encoding="utf-8")
    rng = random.Random(2)
    asked = [
        Request(
            (
                user(
                    render(
                        template,
                        instruction="".join(rng.choices("abcdefgh ", k=40)),
                        informative="".join(rng.choices("abcdefgh ", k=rng.randint(60, 120))),
                        precise="".join(rng.choices("abcdefgh ", k=12)),
                    )
                ),
            ),
            is_raw=True,
        )
        for _ in range(num)
    ]
    labels = ("Y", "N", "O")

    def score() -> Any:
        session._prefixes.clear()
        return session.score([Choices(one, labels) for one in asked])

    def loop() -> Any:
        import torch
        from transformers import GenerationConfig

        prompts = list(session._prompts(asked, Sampling(4), {}).values())
        config = GenerationConfig(
            max_new_tokens=4, do_sample=False, pad_token_id=session._kit.pad_id
        )
        for first in range(0, len(prompts), BATCH):
            batch = session._batch(prompts[first : first + BATCH])
            with torch.inference_mode():
                session._model.generate(**batch, generation_config=config)

    return score, loop


def show(name: str, rounds: int, ours: Callable, loop: Callable) -> None:
    """Run both in turns and print how often as fast ours is."""
    times: dict[str, list[float]] = {"ours": [], "loop": []}
    for _ in range(rounds):
        for side, run in (("ours", ours), ("loop", loop)):
            start = time.process_time()
            run()
            times[side].append(time.process_time() - start)
    ratios = [b / a for a, b in zip(times["ours"], times["loop"], strict=True)]
    print(
        f"{name}: ours {statistics.median(times['ours']):.2f} s, loop "
        f"{statistics.median(times['loop']):.2f} s of processor time; "
        f"{statistics.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
