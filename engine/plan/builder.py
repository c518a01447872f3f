"""Builds a plan node by node: binds params, resolves pins, makes keys, shares equal nodes.

It knows no stage: the stages are an argument, and `pipeline` says how they are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from engine import plugin
from engine.diagnostics import Diagnostic, RequestError, Span
from engine.plan import keys
from engine.plan.stage import Node, Plan, Stage
from engine.plugin import Use

Inputs = Mapping[str, Mapping[str, str]]  # port -> label -> node id


class Pins(Protocol):
    """Resolves what a recipe names to what it is, so that keys are exact before anything runs."""

    def model(self, name: str, revision: str | None) -> Any:
        """Return the identity of a model: weight digests or hub revision."""

    def source(self, use: Use) -> Any:
        """Return the fingerprint of a source. Raise OSError or ValueError when it is not there."""

    def prompt(self, name: str) -> str:
        """Return the text of a template `name@version`."""


@dataclass(slots=True)
class PlanBuilder:
    """Collects nodes; a node whose key is already there is shared, not added."""

    stages: Mapping[str, Stage]
    pins: Pins
    nodes: list[Node] = field(default_factory=list)
    arms: dict[str, list[str]] = field(default_factory=dict)
    diagnostics: list[Diagnostic] = field(default_factory=list)
    _id_by_key: dict[str, str] = field(default_factory=dict)
    _key_by_id: dict[str, str] = field(default_factory=dict)

    def for_arm(self, arm: str, seed: int, span: Callable[..., Span | None]) -> ArmBuilder:
        """Return a builder of one arm; `span` finds the recipe line of a path."""
        return ArmBuilder(self, arm, seed, span)

    def plan(self, recipe: str) -> Plan:
        """Return the plan. Raise RequestError, with every diagnostic, if a pin was not there."""
        self.refuse_mistakes()
        nodes = tuple(replace(node, arms=tuple(self.arms[node.id])) for node in self.nodes)
        return Plan(recipe, nodes)

    def refuse_mistakes(self) -> None:
        """Raise RequestError with every diagnostic so far."""
        if self.diagnostics:
            raise RequestError(*dict.fromkeys(self.diagnostics))

    def add(self, node: Node, arm: str) -> str:
        """Add a node unless one with its key is there; return the id it has in the plan."""
        node_id = self._id_by_key.get(node.key)
        if node_id is None:
            node_id = node.id if node.id not in self._key_by_id else f"{node.id}@{arm}"
            self.nodes.append(replace(node, id=node_id))
            self._id_by_key[node.key] = node_id
            self._key_by_id[node_id] = node.key
            self.arms[node_id] = []
        if arm and arm not in self.arms[node_id]:
            self.arms[node_id].append(arm)
        return node_id

    def key(self, node_id: str) -> str:
        """Return the key of a node."""
        return self._key_by_id[node_id]


@dataclass(slots=True)
class ArmBuilder:
    """Adds nodes of one arm; calling it returns the id of the (new or shared) node."""

    builder: PlanBuilder
    arm: str
    seed: int
    span: Callable[..., Span | None]
    ids: dict[str, str] = field(default_factory=dict)  # plain id -> id in the plan

    def __call__(self, plain: str, params: Any, inputs: Inputs, *path: str | int) -> str:
        """Add the node `plain` (`stage/label`), asked for by the recipe value at `path`."""
        stage = self.builder.stages[plain.split("/", maxsplit=1)[0]]
        given = plugin.unbind(params)
        matters = plugin.unbind(params, with_neutral=False)
        span = self.span(*path)
        prompts = {name: self.builder.pins.prompt(name) for name in sorted(_prompts(given))}
        preimage = {
            "stage": stage.name,
            "version": stage.version,
            "params": matters,
            "inputs": {
                port: {label: self.builder.key(node) for label, node in labels.items()}
                for port, labels in inputs.items()
                if labels
            },
            "prompts": {name: keys.text_digest(text) for name, text in prompts.items()},
            "pins": self._pins(params, given, span),
            "seed": self.seed,
        }
        node = Node(
            id=plain,
            stage=stage.name,
            params=given,
            inputs={port: dict(labels) for port, labels in inputs.items() if labels},
            key=keys.digest(preimage),
            preimage=preimage,
            seed=self.seed,
            prompts=prompts,
            origin=_origin(span),
            needs=stage.needs,
        )
        self.ids[plain] = self.builder.add(node, self.arm)
        return self.ids[plain]

    def _pins(self, params: Any, given: Any, span: Span | None) -> dict[str, Any]:
        pins: dict[str, Any] = {
            name: self._pin(self.builder.pins.model, span, name, revision)
            for name, revision in sorted(_models(given), key=str)
        }
        source = getattr(params, "source", None)
        if isinstance(source, Use):
            pins["source"] = self._pin(self.builder.pins.source, span, source)
        return pins

    def _pin(self, resolve: Any, span: Span | None, *what: Any) -> Any:
        """Resolve a pin; what is not there becomes a diagnostic at its recipe line."""
        try:
            return resolve(*what)
        except (OSError, ValueError) as error:
            code = "not-found" if isinstance(error, OSError) else "empty-source"
            self.builder.diagnostics.append(Diagnostic(code, str(error), span))
            return None


def _origin(span: Span | None) -> dict[str, Any]:
    if span is None:
        return {}
    return {"file": span.file, "line": span.line, "column": span.column}


def _walk(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping inside a JSON value."""
    if isinstance(value, Mapping):
        yield value
        for item in value.values():
            yield from _walk(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _walk(item)


def _models(params: Any) -> set[tuple[str, str | None]]:
    """Return the (model, revision) pairs named anywhere in params."""
    return {
        (found["model"], found["revision"])
        for found in _walk(params)
        if isinstance(found.get("model"), str) and "revision" in found
    }


def _prompts(params: Any) -> set[str]:
    """Return the templates `name@version` named anywhere in params."""
    return {
        value
        for found in _walk(params)
        for key, value in found.items()
        if (key == "prompt" or key.endswith("_prompt")) and isinstance(value, str) and "@" in value
    }
