"""What a node is made of, line by line: everything that its key is the digest of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from engine.plan.stage import Node

_SHOWN = 12  # of a digest
_WIDE = 72
_MOST = 40  # params of a node, before the rest is counted: a report lists the whole plan


def lines(node: Node, state_of: Mapping[str, str]) -> Iterator[str]:
    """Yield the ingredients of a node; `state_of` says what becomes of the nodes it reads."""
    yield f"stage    {node.stage}, version {node.preimage.get('version')}, seed {node.seed}"
    if node.origin:
        yield f"asked by {node.origin['file']}:{node.origin['line']}"
    for port, labels in node.inputs.items():
        for label, name in labels.items():
            of = "" if label == port else f" ({label})"
            yield f"input    {port}{of} <- {name}, {state_of.get(name, 'unknown')}"
    for name, digest in node.preimage.get("prompts", {}).items():
        yield f"prompt   {name}  {digest[:_SHOWN]}"
    for name, pin in node.preimage.get("pins", {}).items():
        yield f"pin      {name}  {_pin(pin)}"
    params = list(_leaves("", node.preimage.get("params", {})))
    for path, value in params[:_MOST]:
        yield f"param    {path}: {_short(value)}"
    if len(params) > _MOST:
        yield f"         and {len(params) - _MOST} params more"


def _leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield the values of nested settings, lists of plain values as one."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _leaves(f"{path}.{name}" if path else name, item)
    elif isinstance(value, list | tuple) and any(isinstance(i, Mapping) for i in value):
        for index, item in enumerate(value):
            yield from _leaves(f"{path}[{index}]", item)
    else:
        yield path, value


def _pin(pin: Any) -> str:
    return pin[:_SHOWN] if isinstance(pin, str) else _short(pin)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDE else text[: _WIDE - 3] + "..."
