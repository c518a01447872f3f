"""From a planned recipe to its numbers: what machine facts a forecast needs, sums and warnings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from engine.cli import licences, planning
from engine.cli.planning import Planned
from engine.diagnostics import Diagnostic, RequestError, nearest
from engine.forecast import DEVICES, Fleet, forecasts, sources, wall_of
from engine.models._known import finder_of
from engine.plan.estimate import Forecast
from engine.rendering import plan_card
from engine.rendering.plan_text import Totals
from engine.runtime import machine
from engine.runtime.outlook import CACHED, View
from engine.runtime.store import Store

_SUMMED = ("wall_h", "cost", "disk_gb")


class Outlay(NamedTuple):
    """The forecast of a plan, and what it was made for."""

    forecasts: Mapping[str, Forecast]
    fleet: Fleet | None
    sums: Mapping[str, float]
    num_unknown: Mapping[str, int]  # nodes to run without a number, by column
    free_gb: float | None
    warnings: tuple[Diagnostic, ...]


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a device."""
    group = parser.add_argument_group("hours and cost")
    names = ", ".join(DEVICES)
    group.add_argument("--on", metavar="DEVICE", help=f"estimate for this GPU: {names}")
    group.add_argument(
        "--gpus", type=int, default=1, metavar="N", help="nodes that run side by side, a GPU each"
    )
    group.add_argument("--price", type=float, metavar="P", help="of one GPU for an hour")


def fleet_of(args: argparse.Namespace) -> Fleet | None:
    """Return the devices asked for. Raise RequestError for one that is not known."""
    if args.gpus < 1 or (args.price is not None and args.price < 0):
        name = "gpus" if args.gpus < 1 else "price"
        raise RequestError(Diagnostic("wrong-flag", f"`--{name}` is too small"))
    if args.on is None:
        if args.price is not None or args.gpus != 1:
            hint = f"name one of {', '.join(DEVICES)}"
            raise RequestError(
                Diagnostic("wrong-flag", "`--price` and `--gpus` need `--on`", hint=hint)
            )
        return None
    name = args.on.lower().replace("_", "-")
    if name not in DEVICES:
        close = nearest(name, DEVICES)
        hint = f"`{close}` is close" if close else f"known devices: {', '.join(DEVICES)}"
        raise RequestError(
            Diagnostic("unknown-device", f"no data of a device `{args.on}`", hint=hint)
        )
    return Fleet(DEVICES[name], args.gpus, args.price)


def outlay(planned: Planned, view: View, store: Store, fleet: Fleet | None = None) -> Outlay:
    """Return what a plan will take, on what is known on this machine."""
    folder = planned.folder
    found = forecasts(
        planned.plan,
        view.measured,
        fleet=fleet,
        models=finder_of(folder, os.environ),
        stored=view.stored,
        count_source=sources.counter(folder),
    )
    to_run = [item.node for item in view.nodes if item.state != CACHED]
    known = {
        name: {n.id: getattr(found[n.id], name).value for n in to_run if getattr(found[n.id], name)}
        for name in _SUMMED
    }
    sums = {name: sum(values.values()) for name, values in known.items() if values}
    if fleet is not None and known["wall_h"]:
        sums["wall_side_by_side_h"] = wall_of(planned.plan, known["wall_h"], fleet.num)
    missing = {name: len(to_run) - len(values) for name, values in known.items()}
    warnings = _too_large(planned, [node.id for node in to_run], found, fleet)
    terms = licences.warning(planned) if to_run else None
    warnings += [terms] if terms else []
    return Outlay(found, fleet, sums, missing, machine.free_disk_gb(store.root), tuple(warnings))


def _too_large(
    planned: Planned, ids: Sequence[str], found: Mapping[str, Forecast], fleet: Fleet | None
) -> list[Diagnostic]:
    if fleet is None:
        return []
    warnings = []
    for node_id in ids:
        peak = found[node_id].gpu_memory_gb
        if peak is None or peak.value <= fleet.device.memory_gb:
            continue
        message = (
            f"`{node_id}` needs {peak.value:,.1f} GB at its peak; {fleet.device.title} has "
            f"{fleet.device.memory_gb:g} ({peak.basis})"
        )
        node = planned.plan.node(node_id)
        span = planning.origin_of(node, planned.folder)
        warnings.append(Diagnostic("too-large-for-device", message, span, _advice(node.params)))
    return warnings


def _advice(params: Mapping[str, Any]) -> str | None:
    training = params.get("training")
    if training is None:
        return "choose a larger device, or `tensor_parallel_size` of the backend `vllm`"
    ways = [] if training["gradient_checkpointing"] else ["gradient_checkpointing: true"]
    ways += ["a smaller `max_length`"]
    ways += [] if params.get("method") == "lora" else ["`base.method: lora`"]
    return f"try {', '.join(ways)}"


def totals(found: Outlay) -> Totals:
    """Return the sums and warnings as lines."""
    notes = dict.fromkeys(one.note for one in found.forecasts.values() if one.note)
    warnings = (*notes, *(line(item) for item in found.warnings))
    return Totals(tuple(_sums(found)), warnings, _fleet_text(found.fleet))


def _sums(found: Outlay) -> Iterator[str]:
    sums = found.sums
    if "wall_h" in sums:
        price = f", {sums['cost']:,.2f} in all" if "cost" in sums else ""
        yield f"to run: {plan_card.span(sums['wall_h'])} of work{price}{_rest(found, 'wall_h')}"
    if found.fleet is not None and found.fleet.num > 1 and "wall_h" in sums:
        side = plan_card.span(sums["wall_side_by_side_h"])
        yield f"{side} from start to end with {found.fleet.num} GPUs: a node takes one of them"
    if "disk_gb" in sums:
        free = f"; {found.free_gb:,.0f} GB are free" if found.free_gb is not None else ""
        size = plan_card.number("disk_gb", sums["disk_gb"])
        yield f"disk: {size} GB{_rest(found, 'disk_gb')}{free}"


def _rest(found: Outlay, name: str) -> str:
    num = found.num_unknown[name]
    return f", {num} nodes left out that have no number" if num else ""


def line(item: Diagnostic) -> str:
    """Return a warning as one line."""
    place = f"{item.span}: " if item.span else ""
    help_ = f"; {item.hint}" if item.hint else ""
    return f"warning[{item.code}]: {place}{item.message}{help_}"


def _fleet_text(fleet: Fleet | None) -> str:
    if fleet is None:
        return ""
    price = f", {fleet.price:g} an hour each" if fleet.price is not None else ""
    device = fleet.device
    return (
        f"on {fleet.num} x {device.title}{price} ({device.half_tflops:g} TFLOP/s in bfloat16, "
        f"{device.bandwidth_gb_s:,g} GB/s: {device.source})"
    )
