"""The training loop: plain PyTorch on a transformers model.

The loss of an optimizer step is the mean over all its trained tokens, however the batch is split,
so micro-batch size and memory never change a result beyond float noise. Every step seeds the random
numbers anew, which makes a resumed run equal to an unbroken one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.diagnostics import StageError
from engine.models import ModelFamily
from engine.models._inputs import InputMaker
from engine.plan.stage import Tools
from engine.plugin import unbind
from engine.recipe.model import TrainSpec
from engine.training import checkpoint, parts
from engine.training.checkpoint import Progress
from engine.training.collate import IGNORED, batches_from, collate
from engine.training.masks import Example

LARGE_MODEL_PARAMETERS = 100_000_000
CPU_MICRO_BATCH = 8


@dataclass(slots=True)
class Trainer:
    """One run of the loop. `device_batch_size` shrinks when memory runs out."""

    model: Any
    family: ModelFamily
    inputs: InputMaker
    examples: Sequence[Example]
    spec: TrainSpec
    tools: Tools
    device_batch_size: int = 0
    is_half: bool = False  # bfloat16 autocast; weights and moments stay float32

    @property
    def num_steps(self) -> int:
        """Return how many optimizer steps the whole run has."""
        per_epoch = math.ceil(len(self.examples) / self.spec.global_batch_size)
        total = math.ceil(self.spec.num_train_epochs * per_epoch)
        return total if self.spec.max_steps is None else min(total, self.spec.max_steps)

    def run(self) -> Progress:
        """Train from the last checkpoint to the end; return steps and logged losses."""
        if self.num_steps == 0:
            return Progress(0, ())
        self._prepare()
        optimizer = self._optimizer()
        learning = list(parts.learning(self.model))
        identity = self._identity(learning)
        progress = checkpoint.load(self.tools.scratch, learning, optimizer, identity)
        losses = list(progress.losses)
        meter = _Meter()
        for step, rows in self._batches(progress.step):
            self._set_rates(optimizer, step)
            meter.add(*self._step(step, rows, optimizer, learning))
            done = step + 1
            if done % self.spec.logging_steps == 0 or done == self.num_steps:
                losses.append(self._log_row(done, meter))
                meter = _Meter()
            if done % self.spec.save_steps == 0 and done < self.num_steps:
                if meter.num_steps:
                    losses.append(self._log_row(done, meter))
                    meter = _Meter()
                saved = Progress(done, tuple(losses))
                checkpoint.save(self.tools.scratch, learning, optimizer, saved, identity)
            self.tools.progress(done, self.num_steps, "steps")
        return Progress(self.num_steps, tuple(losses))

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
        limit = self.spec.per_device_train_batch_size
        if limit is None:
            is_cpu = self.tools.machine.device == "cpu"
            limit = CPU_MICRO_BATCH if is_cpu else self.spec.global_batch_size
        self.device_batch_size = min(limit, self.spec.global_batch_size)

    def _optimizer(self) -> Any:
        import torch

        return torch.optim.AdamW(
            parts.parameter_groups(self.model, self.family, self.spec),
            lr=self.spec.learning_rate,
            betas=(self.spec.adam_beta1, self.spec.adam_beta2),
            fused=True,
        )

    def _batches(self, first_step: int) -> Iterator[tuple[int, list[int]]]:
        lengths = [len(example) for example in self.examples]
        size, seed = self.spec.global_batch_size, self.tools.seed
        return batches_from(lengths, size, seed, first_step, self.num_steps)

    def _set_rates(self, optimizer: Any, step: int) -> None:
        factor = self.rate_factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor

    def _step(
        self, step: int, rows: Sequence[int], optimizer: Any, learning: Sequence[tuple[str, Any]]
    ) -> tuple[Any, int, int]:
        """Take one optimizer step; return the loss sum (on the device), trained and all tokens."""
        import torch

        chosen = sorted((self.examples[row] for row in rows), key=len, reverse=True)
        num_trained = sum(int(example.is_trained[1:].sum()) for example in chosen)
        while True:
            torch.manual_seed(_seed(self.tools.seed, step))
            try:
                loss_sum = self._gradients(chosen, num_trained)
                break
            except torch.OutOfMemoryError as error:
                if self.device_batch_size == 1:
                    raise StageError(
                        "one row does not fit into memory",
                        hint="lower `training.max_length` or set `gradient_checkpointing: true`",
                    ) from error
                self.device_batch_size = max(self.device_batch_size // 2, 1)
                optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
        if self.spec.max_grad_norm > 0:
            torch.nn.utils.clip_grad_norm_([p for _, p in learning], self.spec.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss_sum, num_trained, sum(map(len, chosen))

    def _gradients(self, chosen: Sequence[Example], num_trained: int) -> Any:
        import torch

        total = torch.zeros((), device=self.tools.machine.device)
        for rows in self._micro_batches(chosen):
            loss = self._loss_sum(rows)
            (loss / num_trained).backward()
            total += loss.detach()
        return total

    def _micro_batches(self, chosen: Sequence[Example]) -> Iterator[Sequence[Example]]:
        groups = [chosen]
        if self.family.image_axis is None:  # its processor refuses rows without images among others
            groups = [[e for e in chosen if e.digests], [e for e in chosen if not e.digests]]
        for group in groups:
            for first in range(0, len(group), self.device_batch_size):
                yield group[first : first + self.device_batch_size]

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

    def _wants_half(self) -> bool:
        if self.spec.precision != "auto":
            return self.spec.precision == "bfloat16"
        is_large = sum(p.numel() for p in self.model.parameters()) > LARGE_MODEL_PARAMETERS
        return self.tools.machine.device != "cpu" and is_large

    def _log_row(self, done: int, meter: _Meter) -> dict[str, Any]:
        loss = meter.mean()
        if not math.isfinite(loss):
            raise StageError(
                f"the loss is not a number at step {done}",
                hint="lower `training.learning_rate`",
            )
        self.tools.log(f"step {done} of {self.num_steps}: loss {loss:.4f}")
        per_epoch = math.ceil(len(self.examples) / self.spec.global_batch_size)
        return {
            "step": done,
            "epoch": round(done / per_epoch, 4),
            "loss": loss,
            "learning_rate": self.spec.learning_rate * self.rate_factor(done - 1),
            "tokens": meter.num_tokens,
        }

    def _identity(self, learning: Sequence[tuple[str, Any]]) -> str:
        """Name the run: a checkpoint of another recipe or other rows must not be picked up."""
        digest = hashlib.sha256()
        digest.update(json.dumps(unbind(self.spec, with_neutral=False), sort_keys=True).encode())
        digest.update(f"{self.tools.seed}".encode())
        for example in self.examples:
            digest.update(example.ids.tobytes())
            digest.update("".join(example.digests).encode())
        for name, parameter in learning:
            digest.update(f"{name}{tuple(parameter.shape)}".encode())
        return digest.hexdigest()


class _Meter:
    """Adds up losses on the device; reading them waits for it, so that is done when logging."""

    def __init__(self) -> None:
        self.num_steps = 0
        self.num_tokens = 0
        self._num_trained = 0
        self._loss_sum: Any = 0.0

    def add(self, loss_sum: Any, num_trained: int, num_tokens: int) -> None:
        self._loss_sum = self._loss_sum + loss_sum
        self._num_trained += num_trained
        self.num_tokens += num_tokens
        self.num_steps += 1

    def mean(self) -> float:
        return float(self._loss_sum) / max(self._num_trained, 1)


def _seed(seed: int, step: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:7], "big")


def save_model(model: Any, kit: Any, folder: Path, dtype: Any) -> None:
    """Write a complete model folder: weights, config, processor, template, generation defaults."""
    model.to(dtype)
    model.save_pretrained(folder)
    kit.processor.save_pretrained(folder)
