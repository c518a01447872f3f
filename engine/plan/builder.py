"""Builds a plan node by node: binds params, resolves pins, makes keys, shares equal nodes.

It knows no stage: the stages are an argument, and `pipeline` says how they are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine import plugin
from engine.diagnostics import Diagnostic, RequestError, Span
from engine.plan import keys
from engine.plan.stage import Node, Plan, Stage
from engine.plugin import Use

Inputs = Mapping[str, Mapping[str, str]]  # port -> label -> node id
_PLAIN = frozenset((str, int, float, bool, type(None)))
_OWN_LEVELS = 2  # params, and a value such as ModelUse that is made anew for each node


class Pins(Protocol):
    """Resolves what a recipe names to what it is, so that keys are exact before anything runs."""

    def model(self, name: str, revision: str | None) -> Any:
        """Return the identity of a model: weight digests or hub revision."""

    def source(self, use: Use) -> Any:
        """Return the fingerprint of a source. Raise OSError or ValueError when it is not there."""

    def prompt(self, name: str) -> str:
        """Return the text of a template `name@version`."""


@dataclass(frozen=True, slots=True)
class _Bound:
    """What the params of a stage come to; made once for params that hold the same values."""

    params: Any  # kept, because it is known by the identity of what it holds
    given: Mapping[str, Any]  # as JSON, neutral fields included
    prompts: Mapping[str, str]  # template text by name
    preimage: Mapping[str, Any]  # params, pins, prompts
    canonical: Mapping[str, str]  # the same, each value as canonical JSON


@dataclass(slots=True)
class _Shared:
    """A node of the plan while it is built: the arms that use it are not all known yet."""

    node: Node
    arms: list[str]


@dataclass(slots=True)
class PlanBuilder:
    """Collects nodes; a node whose key is already there is shared, not added."""

    stages: Mapping[str, Stage]
    pins: Pins
    name_file: Callable[[str], str]  # the file of a recipe line -> its name in the plan
    diagnostics: list[Diagnostic] = field(default_factory=list)
    # What a node is asked with -> its key, so that an arm that asks the same pays for no digest.
    # `_Bound` values are told apart by identity; those that are not kept are never asked again.
    visited: dict[Hashable, str] = field(default_factory=dict)
    _shared: dict[str, _Shared] = field(default_factory=dict)  # by key, in topological order
    _key_by_id: dict[str, str] = field(default_factory=dict)
    _bound: dict[Hashable, _Bound] = field(default_factory=dict)
    _pinned: dict[Hashable, Any] = field(default_factory=dict)

    @property
    def nodes(self) -> list[Node]:
        """Return the nodes so far, without their arms."""
        return [shared.node for shared in self._shared.values()]

    def for_arm(self, arm: str, seed: int, span: Callable[..., Span | None]) -> ArmBuilder:
        """Return a builder of one arm; `span` finds the recipe line of a path."""
        return ArmBuilder(self, arm, seed, span)

    def plan(self, recipe: str) -> Plan:
        """Return the plan. Raise RequestError, with every diagnostic, if a pin was not there."""
        self.refuse_mistakes()
        return Plan(recipe, tuple(_with_arms(s.node, s.arms) for s in self._shared.values()))

    def refuse_mistakes(self) -> None:
        """Raise RequestError with every diagnostic so far."""
        if self.diagnostics:
            raise RequestError(*dict.fromkeys(self.diagnostics))

    def share(self, key: str, arm: str) -> str | None:
        """Return the id of the node that has a key, used by one arm more; None without one."""
        shared = self._shared.get(key)
        if shared is None:
            return None
        if arm and arm not in shared.arms[-1:]:  # arms come one after the other
            shared.arms.append(arm)
        return shared.node.id

    def free_id(self, plain: str, arm: str) -> str:
        """Return the id for a new node: the plain one, or the arm's own where that is taken."""
        return plain if plain not in self._key_by_id else f"{plain}@{arm}"

    def add(self, node: Node, arm: str) -> None:
        """Add a node whose key is new."""
        self._shared[node.key] = _Shared(node, [arm] if arm else [])
        self._key_by_id[node.id] = node.key

    def id_of(self, key: str) -> str:
        """Return the id of the node that has a key."""
        return self._shared[key].node.id

    def key(self, node_id: str) -> str:
        """Return the key of a node."""
        return self._key_by_id[node_id]

    def origin(self, span: Span | None) -> dict[str, Any]:
        """Return the recipe line of a node as the plan holds it."""
        if span is None:
            return {}
        return {"file": self.name_file(span.file), "line": span.line, "column": span.column}

    def bound(self, params: Any, span: Span | None) -> _Bound:
        """Bind params and resolve what they name; what is not there becomes a diagnostic."""
        identity = _identity(params)
        found = self._bound.get(identity)
        if found is None:
            before = len(self.diagnostics)
            found = self._bind(params, span)
            if len(self.diagnostics) == before:
                self._bound[identity] = found
        return found

    def _bind(self, params: Any, span: Span | None) -> _Bound:
        given = plugin.unbind(params)
        prompts = {name: self._prompt(name) for name in sorted(_prompts(given))}
        preimage = {
            "params": plugin.unbind(params, with_neutral=False),
            "pins": self._pins(params, given, span),
            "prompts": {name: keys.text_digest(text) for name, text in prompts.items()},
        }
        canonical = {name: keys.canonical(value) for name, value in preimage.items()}
        return _Bound(params, given, prompts, preimage, canonical)

    def _prompt(self, name: str) -> str:
        if ("prompt", name) not in self._pinned:
            self._pinned["prompt", name] = self.pins.prompt(name)
        return str(self._pinned["prompt", name])

    def _pins(self, params: Any, given: Any, span: Span | None) -> dict[str, Any]:
        pins: dict[str, Any] = {}
        for name, revision in sorted(_models(given), key=str):
            known = (name, revision)
            if known not in self._pinned:
                self._pinned[known] = self._pin(self.pins.model, span, name, revision)
            pins[name] = self._pinned[known]
        source = getattr(params, "source", None)
        if isinstance(source, Use):
            pins["source"] = self._pin(self.pins.source, span, source)
        return pins

    def _pin(self, resolve: Any, span: Span | None, *what: Any) -> Any:
        """Resolve a pin; what is not there becomes a diagnostic at its recipe line."""
        try:
            return resolve(*what)
        except (OSError, ValueError) as error:
            code = "not-found" if isinstance(error, OSError) else "empty-source"
            self.diagnostics.append(Diagnostic(code, str(error), span))
            return None


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
        span = self.span(*path)
        bound = self.builder.bound(params, span)
        visit = (stage.name, id(bound), self.seed, _flat(inputs))
        known = self.builder.visited.get(visit)
        if known is not None and self.builder.share(known, self.arm) is not None:
            return self._placed(plain, self.builder.id_of(known))
        wired = {port: dict(labels) for port, labels in inputs.items() if labels}
        own = {
            "stage": stage.name,
            "version": stage.version,
            "inputs": {
                port: {label: self.builder.key(node) for label, node in labels.items()}
                for port, labels in wired.items()
            },
            "seed": self.seed,
        }
        canonical = {name: keys.canonical(value) for name, value in own.items()}
        key = keys.text_digest(keys.canonical_object({**canonical, **bound.canonical}))
        self.builder.visited[visit] = key
        node_id = self.builder.share(key, self.arm)
        if node_id is None:
            node_id = self.builder.free_id(plain, self.arm)
            node = Node(
                id=node_id,
                stage=stage.name,
                params=bound.given,
                inputs=wired,
                key=key,
                preimage={**own, **bound.preimage},
                seed=self.seed,
                prompts=bound.prompts,
                origin=self.builder.origin(span),
                needs=stage.needs,
            )
            self.builder.add(node, self.arm)
        return self._placed(plain, node_id)

    def _placed(self, plain: str, node_id: str) -> str:
        self.ids[plain] = node_id
        return node_id


def _flat(inputs: Inputs) -> Hashable:
    return tuple((port, *labels.items()) for port, labels in inputs.items() if labels)


def _with_arms(node: Node, arms: list[str]) -> Node:
    """Return a node with its arms; `dataclasses.replace` takes four times as long."""
    return Node(
        id=node.id,
        stage=node.stage,
        params=node.params,
        inputs=node.inputs,
        key=node.key,
        preimage=node.preimage,
        seed=node.seed,
        prompts=node.prompts,
        origin=node.origin,
        arms=tuple(arms),
        needs=node.needs,
    )


def _identity(value: Any, depth: int = 0) -> Hashable:
    """Return what tells params apart: plain values and, deeper down, the objects themselves.

    Arms share the values of sections that they leave alone, so the same object is the same value.
    """
    kind = value.__class__
    if kind in _PLAIN:
        return kind, value  # True, 1 and 1.0 are equal, but not the same JSON
    fields = getattr(value, "__dataclass_fields__", ()) if depth < _OWN_LEVELS else ()
    if not fields:
        return kind, id(value)
    return kind, *[_identity(getattr(value, name), depth + 1) for name in fields]


def _walk(value: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every mapping inside a JSON value."""
    if isinstance(value, dict):
        yield value
        for item in value.values():
            if isinstance(item, dict | list):
                yield from _walk(item)
    elif isinstance(value, list):
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
