"""The training loop: plain PyTorch on a transformers model.

The loss of an optimizer step is the mean over all its trained tokens, however the batch is split,
so micro-batch size and memory never change a result beyond float noise (with dropout: beyond which
values are dropped). Every step seeds the random numbers anew, which makes a resumed run equal to an
unbroken one, to the bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.diagnostics import StageError
from engine.models import ModelFamily
from engine.models._inputs import InputMaker
from engine.plan.stage import Stopped, Tools
from engine.plugin import unbind
from engine.recipe.model import TrainSpec
from engine.training import parts
from engine.training.checkpoint import Progress, State
from engine.training.collate import IGNORED, batches_from, collate
from engine.training.keeper import Keeper, Meter
from engine.training.masks import Example
from engine.training.prepared import Examples
from engine.training.team import ALONE, Team

LARGE_MODEL_PARAMETERS = 100_000_000
CPU_MICRO_BATCH = 8


@dataclass(slots=True)
class Trainer:
    """One run of the loop. `num_halvings` of the micro-batch grow when memory runs out.

    Rows that are `held_out` are never trained on: what they lose is told at the end of each epoch.
    """

    model: Any
    family: ModelFamily
    inputs: InputMaker
    examples: Examples
    held_out: Examples
    spec: TrainSpec
    tools: Tools
    team: Team = ALONE
    clock: Callable[[], float] = time.monotonic
    num_halvings: int = 0
    is_half: bool = False  # bfloat16 autocast; weights and moments stay float32

    @property
    def num_steps(self) -> int:
        """Return how many optimizer steps the whole run has."""
        total = math.ceil(self.spec.num_train_epochs * self.steps_per_epoch)
        return total if self.spec.max_steps is None else min(total, self.spec.max_steps)

    @property
    def steps_per_epoch(self) -> int:
        """Return how many optimizer steps see every row once."""
        return math.ceil(len(self.examples) / self.spec.global_batch_size)

    def run(self) -> Progress:
        """Train from the last checkpoint to the end; return steps and logged losses.

        When asked to stop, keep the last finished step in a checkpoint and raise `Stopped`.
        """
        if self.num_steps == 0:
            return Progress(0, ())
        self._prepare()
        state = self._state()
        keeper = Keeper(self.tools, self.team, state, self.spec.save_steps, self.clock)
        progress = keeper.start()
        self.num_halvings = max(self.tools.machine.shrink, progress.num_halvings)
        losses = list(progress.losses)
        if progress.step:
            self._tell_held_out(progress.step, losses, state)  # if it was stopped meanwhile
        meter = Meter(progress.unlogged)
        for step, rows in self._batches(progress.step):
            self._set_rates(state.optimizer, step)
            try:
                meter.add(*self._step(step, rows, state))
            except Stopped:
                keeper.keep(Progress(step, tuple(losses), meter.sums(), self.num_halvings))
                raise
            done = step + 1
            if done % self.spec.logging_steps == 0 or self._tells_held_out(done):
                losses.append(self._log_row(done, meter))
                meter = Meter()
            try:
                self._tell_held_out(done, losses, state)
            except Stopped:
                keeper.keep(Progress(done, tuple(losses), meter.sums(), self.num_halvings))
                raise
            if done < self.num_steps and keeper.is_due(done):
                keeper.keep(Progress(done, tuple(losses), meter.sums(), self.num_halvings))
            self.tools.progress(done, self.num_steps, "steps")
        ended = Progress(self.num_steps, tuple(losses), is_end=True)
        if self.team.count > 1:  # another process saves the model
            keeper.keep(ended)
        return ended

    def rate_factor(self, step: int) -> float:
        """Return the share of the peak learning rate at a step, counting from 0."""
        total = self.num_steps
        num_warmup = math.ceil(self.spec.warmup_ratio * total)
        if step < num_warmup:
            return (step + 1) / num_warmup
        if self.spec.lr_scheduler_type == "constant":
            return 1.0
        ratio = (step - num_warmup) / max(total - num_warmup, 1)
        if self.spec.lr_scheduler_type == "linear":
            return 1.0 - ratio
        return 0.5 * (1.0 + math.cos(math.pi * ratio))

    def _prepare(self) -> None:
        import torch

        torch.set_num_threads(self.tools.machine.num_threads)
        if self.tools.machine.device != "cpu":
            torch.set_float32_matmul_precision("high")  # TF32: the paper's setting
        self.is_half = self._wants_half()
        if self.is_half and self.tools.machine.device == "cpu":
            # Torch's fused attention is slow backwards in bfloat16 here (tests/bench/attention.py).
            self.model.set_attn_implementation("eager")
        self.model.train()
        if self.spec.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
            self.model.enable_input_require_grads()

    @property
    def micro_batch_size(self) -> int:
        """Return how many rows pass the model at once: the limit, halved as often as needed."""
        limit = self.spec.per_device_train_batch_size
        share = -(-self.spec.global_batch_size // self.team.count)
        if limit is None:
            limit = CPU_MICRO_BATCH if self.tools.machine.device == "cpu" else share
        return max(min(limit, share) >> self.num_halvings, 1)

    def _state(self) -> State:
        learning = list(parts.learning(self.model))
        lasting = self.model.state_dict().keys()
        buffers = [(n, b) for n, b in self.model.named_buffers() if n in lasting]
        return State(learning, buffers, self._optimizer(), self.team, self._identity(learning))

    def _optimizer(self) -> Any:
        import torch

        return torch.optim.AdamW(
            parts.parameter_groups(self.model, self.family, self.spec),
            lr=self.spec.learning_rate,
            betas=(self.spec.adam_beta1, self.spec.adam_beta2),
            fused=True,
        )

    def _batches(self, first_step: int) -> Iterator[tuple[int, list[int]]]:
        size, seed = self.spec.global_batch_size, self.tools.seed
        return batches_from(self.examples.lengths, size, seed, first_step, self.num_steps)

    def _set_rates(self, optimizer: Any, step: int) -> None:
        factor = self.rate_factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    def _step(self, step: int, rows: Sequence[int], state: State) -> tuple[Any, int, int]:
        """Take one optimizer step; return the loss sum (on the device), trained and all tokens."""
        import torch

        chosen = sorted((self.examples[row] for row in rows), key=len, reverse=True)
        num_trained = sum(int(example.is_trained[1:].sum()) for example in chosen)

        def gradients() -> Any:
            torch.manual_seed(_seed(self.tools.seed, step, self.team.rank))
            return self._gradients(chosen, num_trained)

        loss_sum = self._smaller_until_it_fits(gradients, state)
        self.num_halvings = self.team.add_up(state.learning, loss_sum, self.num_halvings)
        if self.spec.max_grad_norm > 0:
            learning = [parameter for _, parameter in state.learning]
            torch.nn.utils.clip_grad_norm_(learning, self.spec.max_grad_norm)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        return loss_sum, num_trained, sum(map(len, chosen))

    def _smaller_until_it_fits(self, work: Callable[[], Any], state: State) -> Any:
        """Return a result, with smaller micro-batches whenever memory runs out."""
        import torch

        while (found := self._if_it_fits(work)) is None:
            self.num_halvings += 1
            state.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
        return found

    def _if_it_fits(self, work: Callable[[], Any]) -> Any | None:
        """Return a result, or None if memory ran out: the error, gone then, held some of it."""
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.micro_batch_size == 1:
                raise StageError(
                    "one row does not fit into memory",
                    hint="lower `training.max_length` or set `gradient_checkpointing: true`",
                ) from error
            if self.team.is_split:  # the others stand in the middle of a step: begin anew, smaller
                raise
            return None

    def _gradients(self, chosen: Sequence[Example], num_trained: int) -> Any:
        import torch

        total = torch.zeros((), device=self.tools.machine.device)
        for rows in self._micro_batches(chosen):
            if self.team.agree(self.tools.stopping):
                raise Stopped
            loss = self._loss_sum(rows)
            (loss / num_trained).backward()
            total += loss.detach()
        return total

    def _micro_batches(self, chosen: Sequence[Example]) -> Iterator[Sequence[Example]]:
        groups = [chosen]
        if self.family.image_axis is None:  # its processor refuses rows without images among others
            groups = [[e for e in chosen if e.digests], [e for e in chosen if not e.digests]]
        for group in groups:
            if group:
                yield from self.team.micro_batches(group, self.micro_batch_size)

    def _loss_sum(self, rows: Sequence[Example]) -> Any:
        import torch

        device = self.tools.machine.device
        batch, labels = collate(rows, self.inputs)
        moved = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
        labels = labels.to(device, non_blocking=True)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=self.is_half):
            logits = self.model(**moved, use_cache=False).logits
        return torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(),
            labels[:, 1:].flatten(),
            ignore_index=IGNORED,
            reduction="sum",
        )

    def _tells_held_out(self, done: int) -> bool:
        """Tell whether an epoch ends after so many steps, or everything."""
        is_epoch = bool(self.held_out) and done % self.steps_per_epoch == 0
        return is_epoch or done == self.num_steps

    def _tell_held_out(self, done: int, losses: list[Mapping[str, Any]], state: State) -> None:
        """Add what the held-out rows lose to the last of the losses, where an epoch ends."""
        if not self.held_out or not self._tells_held_out(done) or "held_out_loss" in losses[-1]:
            return
        found = self._smaller_until_it_fits(self._held_out_loss, state)
        self.tools.log(f"held-out loss after {done} steps: {found:.4f}")
        losses[-1] = {**losses[-1], "held_out_loss": found}

    def _held_out_loss(self) -> float:
        """Return the mean loss of the held-out rows per token that rows are trained on."""
        import torch

        total = torch.zeros(2, device=self.tools.machine.device, dtype=torch.float64)
        size = self.spec.global_batch_size
        self.model.eval()
        with torch.no_grad():
            for first in range(0, len(self.held_out), size):
                rows = [
                    self.held_out[n] for n in range(first, min(first + size, len(self.held_out)))
                ]
                for batch in self._micro_batches(sorted(rows, key=len, reverse=True)):
                    if self.team.agree(self.tools.stopping):
                        raise Stopped
                    total[0] += self._loss_sum(batch)
                    total[1] += sum(int(example.is_trained[1:].sum()) for example in batch)
        self.model.train()
        loss_sum, num_tokens = self.team.total(total).tolist()
        return float(loss_sum / num_tokens)

    def _wants_half(self) -> bool:
        if self.spec.precision != "auto":
            return self.spec.precision == "bfloat16"
        is_large = sum(p.numel() for p in self.model.parameters()) > LARGE_MODEL_PARAMETERS
        return self.tools.machine.device != "cpu" and is_large

    def _log_row(self, done: int, meter: Meter) -> dict[str, Any]:
        loss = meter.mean()
        if not math.isfinite(loss):
            raise StageError(
                f"the loss is not a number at step {done}",
                hint="lower `training.learning_rate`",
            )
        self.tools.log(f"step {done} of {self.num_steps}: loss {loss:.4f}")
        return {
            "step": done,
            "epoch": round(done / self.steps_per_epoch, 4),
            "loss": loss,
            "learning_rate": self.spec.learning_rate * self.rate_factor(done - 1),
            "tokens": meter.num_tokens,
        }

    def _identity(self, learning: Sequence[tuple[str, Any]]) -> str:
        """Name the run: a checkpoint of another recipe or other rows must not be picked up."""
        digest = hashlib.sha256()
        digest.update(json.dumps(unbind(self.spec, with_neutral=False), sort_keys=True).encode())
        digest.update(f"{self.tools.seed}".encode())
        digest.update(self.examples.digest.encode() + self.held_out.digest.encode())
        for name, parameter in learning:
            digest.update(f"{name}{tuple(parameter.shape)}".encode())
        return digest.hexdigest()


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out; for the CPU torch says so only in words."""
    import torch

    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or "can't allocate memory" in str(error)


def _seed(seed: int, step: int, rank: int) -> int:
    text = f"{seed}/{step}/{rank}" if rank else f"{seed}/{step}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def save_model(model: Any, kit: Any, folder: Path, dtype: Any) -> None:
    """Write a complete model folder: weights, config, processor, template, generation defaults."""
    model.to(dtype)
    _mend_generation_config(model)
    if kit.family.stored_prefixes:
        # transformers would write the names that the base was stored with, and those may be its own
        # new ones, which vLLM does not read.
        weights = {kit.family.stored_name(n): value for n, value in model.state_dict().items()}
        model.save_pretrained(folder, state_dict=weights, save_original_format=False)
    else:
        model.save_pretrained(folder)
    kit.processor.save_pretrained(folder)


def _mend_generation_config(model: Any) -> None:
    """Leave only its tokens in generation defaults that contradict themselves.

    Older bases come with a temperature for greedy decoding; transformers reads that, and refuses to
    write it: a long training would end without a model.
    """
    import transformers

    given = model.generation_config
    try:
        given.validate(strict=True)
    except ValueError:
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        kept = {name: getattr(given, name) for name in names}
        model.generation_config = transformers.GenerationConfig(**kept)
