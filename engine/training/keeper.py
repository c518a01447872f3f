"""What a training run counts up between two log rows, and when it takes a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.plan.stage import Tools
from engine.training import checkpoint
from engine.training.checkpoint import Progress, State
from engine.training.team import Team


class Keeper:
    """Decides when to take a checkpoint, and takes it: every so many steps, and minutes."""

    def __init__(
        self, tools: Tools, team: Team, state: State, save_steps: int, clock: Callable[[], float]
    ) -> None:
        self._tools = tools
        self._team = team
        self._state = state
        self._save_steps = save_steps
        self._clock = clock
        self._kept_step = 0
        self._kept_at = clock()

    def start(self) -> Progress:
        """Go back to the last checkpoint, if there is one."""
        progress = checkpoint.load(self._tools.scratch, self._state)
        self._kept_step = progress.step
        if progress.step:
            self._tools.log(f"goes on after step {progress.step}")
        return progress

    def is_due(self, done: int) -> bool:
        """Tell whether to keep what there is after so many steps."""
        is_step = done % self._save_steps == 0
        return self._team.agree(lambda: is_step or self._is_late())

    def keep(self, progress: Progress) -> None:
        """Write a checkpoint unless this step has one."""
        is_writer = self._team.is_first or self._team.is_split
        if is_writer and progress.step != self._kept_step:
            checkpoint.save(self._tools.scratch, self._state, progress)
        self._kept_step = progress.step
        self._kept_at = self._clock()

    def _is_late(self) -> bool:
        return self._clock() - self._kept_at >= self._tools.machine.checkpoint_every_s


class Meter:
    """Adds up losses on the device; reading them waits for it, so that is done when logging."""

    def __init__(self, sums: Mapping[str, float] | None = None) -> None:
        sums = sums or {}
        self.num_tokens = int(sums.get("num_tokens", 0))
        self._num_trained = int(sums.get("num_trained", 0))
        self._loss_sum: Any = sums.get("loss_sum", 0.0)

    def add(self, loss_sum: Any, num_trained: int, num_tokens: int) -> None:
        """Add a step."""
        self._loss_sum = self._loss_sum + loss_sum
        self._num_trained += num_trained
        self.num_tokens += num_tokens

    def mean(self) -> float:
        """Return the loss per trained token."""
        return float(self._loss_sum) / max(self._num_trained, 1)

    def sums(self) -> dict[str, float]:
        """Return what `Meter` begins with to go on from here; every float32 is a float as well."""
        return {
            "num_tokens": self.num_tokens,
            "num_trained": self._num_trained,
            "loss_sum": float(self._loss_sum),
        }
