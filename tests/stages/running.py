"""Runs stages in this process, as a node's own process does."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine import plugin
from engine.artifacts import Artifact, Inputs, Manifest, Outputs
from engine.plan.stage import Machine, Part, PartDone, Stage, Tools


@dataclass
class Bench:
    """A folder to run stages in; remembers the progress they reported."""

    folder: Path
    seed: int = 42
    machine: Machine = field(default_factory=Machine)
    prompts: Mapping[str, str] = field(default_factory=dict)
    progress: list[tuple[int, int | None, str]] = field(default_factory=list)
    num_runs: int = 0

    def run(
        self,
        stage: Stage,
        params: Mapping[str, Any],
        inputs: Mapping[str, Mapping[str, Artifact]] | None = None,
        *,
        scratch: str | None = None,
    ) -> Artifact:
        """Run a stage on bound params; return its artifact."""
        self.num_runs += 1
        outputs = Outputs(self._folder(f"artifact-{self.num_runs}"))
        tools = self.tools(scratch or f"scratch-{self.num_runs}")
        try:
            stage.run(Inputs(inputs or {}), plugin.bind(stage.params, params), outputs, tools)
        finally:
            counts = outputs.counts()
        manifest = Manifest("key", stage.name, (), counts, (), {}, "digest")
        return Artifact(outputs.path, manifest)

    def run_part(
        self,
        stage: Stage,
        params: Mapping[str, Any],
        inputs: Mapping[str, Mapping[str, Artifact]] | None = None,
        *,
        part: Part,
        scratch: str,
    ) -> None:
        """Let a part of a stage do its share."""
        self.num_runs += 1
        outputs = Outputs(self._folder(f"part-{self.num_runs}"))
        tools = replace(self.tools(scratch), part=part)
        bound = plugin.bind(stage.params, params)
        with suppress(PartDone):
            stage.run(Inputs(inputs or {}), bound, outputs, tools)
            raise AssertionError("the part does not end")

    def tools(self, scratch: str) -> Tools:
        return Tools(
            seed=self.seed,
            scratch=self._folder(scratch),
            prompts=self.prompts,
            machine=self.machine,
            locate=lambda name: (self.folder / name).resolve(),
            locate_model=str,
            log=lambda message: None,
            progress=lambda *report: self.progress.append(report),
        )

    def _folder(self, name: str) -> Path:
        folder = self.folder / ".bench" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder
