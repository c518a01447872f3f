"""What each node of a plan will probably take and make, and where each number comes from.

Pure arithmetic on a plan, on what earlier runs measured and on the configs of its models. A number
that nothing stands on is not given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.forecast import flow
from engine.forecast.devices import DEVICES, Device
from engine.forecast.flow import STORED, CountSource, Inputs, Known, Made
from engine.forecast.load import Load
from engine.forecast.loads import Workshop
from engine.models._known import ModelFinder
from engine.plan.estimate import Figure, Forecast, Measurement, Past, Stored
from engine.plan.stage import Node, Plan

__all__ = ["DEVICES", "Device", "Fleet", "forecasts", "wall_of"]

_SECONDS_PER_HOUR = 3600
_FAR = 3  # times as much work: beyond it the cost of starting up falsifies a measurement
_UNITS = {  # what a stage worked through, by its own counts
    "collect": ("rows", "quarantine"),
    "curate": ("pairs", "holdout", "quarantine"),
    "seeds": ("rows", "held_out", "quarantine"),
    "generate": ("num_pairs",),
    "filter": ("kept", "dropped"),
    "repair": ("tasks", "quarantine"),
    "mix": ("train", "captions", "instructions"),
    "train": ("steps",),
    "synthesizer": ("steps",),
    "evaluate.answers": ("answers",),
    "evaluate.scores": ("items",),
}


class Fleet:
    """The devices of a plan: which, how many, and the price of an hour of one."""

    def __init__(self, device: Device, num: int = 1, price: float | None = None) -> None:
        self.device = device
        self.num = num
        self.price = price


def forecasts(
    plan: Plan,
    measured: Sequence[Measurement],
    *,
    fleet: Fleet | None = None,
    models: ModelFinder | None = None,
    stored: Mapping[str, Stored] | None = None,
    count_source: CountSource | None = None,
) -> dict[str, Forecast]:
    """Return the forecast of each node by id; `measured` is in order of time.

    Without a fleet, hours are those that were measured. `models` finds configs, `stored` says what
    is in the store by key, and `count_source` counts the rows of a source of this machine.
    """
    past = Past(measured)
    known = Known(plan.recipe, past, stored or {}, count_source or (lambda _: None))
    workshop = Workshop(models or ModelFinder(), fleet.device if fleet else None)
    made: dict[str, Made] = {}
    found: dict[str, Forecast] = {}
    for node in plan.nodes:
        inputs = {
            port: made[next(iter(labels.values()))]
            for port, labels in node.inputs.items()
            if labels
        }
        made[node.id] = flow.made_by(node, inputs, known)
        load = workshop.load(node, made[node.id], inputs)
        found[node.id] = _forecast(node, made[node.id], inputs, load, known, fleet)
    return found


def wall_of(plan: Plan, hours: Mapping[str, float], num: int) -> float:
    """Return how long nodes take when up to `num` run at once, each as soon as it can."""
    import heapq

    ends: dict[str, float] = {}
    free = [0.0] * max(num, 1)
    for node in plan.nodes:
        needed = [ends[i] for labels in node.inputs.values() for i in labels.values() if i in ends]
        ready = max(needed, default=0.0)
        if not hours.get(node.id):
            ends[node.id] = ready
            continue
        start = max(ready, heapq.heappop(free))
        ends[node.id] = start + hours[node.id]
        heapq.heappush(free, ends[node.id])
    return max(ends.values(), default=0.0)


def _forecast(
    node: Node, made: Made, inputs: Inputs, load: Load, known: Known, fleet: Fleet | None
) -> Forecast:
    hours = _measured_h(node, made, inputs, known, fleet) or load.wall_h
    disk = load.disk_gb
    stored = known.stored.get(node.key)
    if stored is not None:
        disk = Figure(stored.size_bytes / 1e9, STORED)
    return Forecast(
        rows=_rows(made),
        images=made.images,
        tokens=_measured_tokens(node, made, known) or load.tokens,
        gpu_memory_gb=load.gpu_memory_gb,
        wall_h=hours,
        cost=_cost(node, hours, load, fleet),
        disk_gb=disk,
        note=load.note,
    )


def _measured_tokens(node: Node, made: Made, known: Known) -> Figure | None:
    """Return the tokens of a training by what a step of it took before."""
    past = known.past.own(node, known.recipe)
    steps = _units_now(node, made, {}) if "training" in node.params else None
    if past is None or steps is None or not past.counts.get("steps"):
        return None
    each = past.counts.get("tokens", 0.0) / past.counts["steps"]
    return Figure(round(each * steps), f"measured: {each:,.0f} tokens a step in run {past.run}")


def _rows(made: Made) -> Figure | None:
    """Return what a node passes on; what it drops is only read to be mended."""
    rows = {name: figure for name, figure in made.rows.items() if name != "dropped"}
    figures = list(rows.values())
    if len(figures) <= 1:
        return figures[0] if figures else None
    sets = ", ".join(f"{figure.value:,.0f} {name}" for name, figure in rows.items())
    return Figure(sum(figure.value for figure in figures), f"{sets}; {figures[0].basis}")


def _measured_h(
    node: Node, made: Made, inputs: Inputs, known: Known, fleet: Fleet | None
) -> Figure | None:
    """Return the hours that an earlier run took, scaled by the work that there is now.

    With a named GPU, what a model took on a CPU says nothing. Another node stands in only where no
    model runs: how long a model takes depends on which it is.
    """
    uses_model = node.needs.accelerator
    past = known.past.own(node, known.recipe)
    if past is None and not uses_model:
        past = known.past.alike(node, known.recipe)
    if past is None or (fleet is not None and uses_model and past.device == "cpu"):
        return None
    who = "" if past.node == node.id else f"`{past.node}` of "
    basis = f"measured: {who}run {past.run}" if past.run else "measured: the same node before"
    hours = past.wall_s / _SECONDS_PER_HOUR
    then, now = _units_then(node, past), _units_now(node, made, inputs)
    if not then or now is None or now == then:
        return Figure(hours, basis)
    grown = now / then
    far = ", assumed to grow in step" if not 1 / _FAR <= grown <= _FAR else ""
    return Figure(hours * grown, f"{basis}, scaled from {then:,.0f} to {now:,.0f}{far}")


def _units_then(node: Node, past: Measurement) -> float:
    return sum(past.counts.get(name, 0.0) for name in _UNITS.get(node.stage, ()))


def _units_now(node: Node, made: Made, inputs: Inputs) -> float | None:
    read = {
        "curate": ("pairs", "rows"),
        "seeds": ("seed_tasks", "rows"),
        "filter": ("tasks", "tasks"),
        "repair": ("tasks", "dropped"),
    }
    if node.stage in read:
        port, row_set = read[node.stage]
        found = inputs[port].get(row_set) if port in inputs else None
        return found.value if found else None
    if node.stage == "generate":
        pairs = inputs["pairs"].get(node.params["row_set"]) if "pairs" in inputs else None
        return pairs.value if pairs else None
    if node.stage in ("train", "synthesizer"):
        rows = made.get("read")
        return -(-rows.value // node.params["training"]["global_batch_size"]) if rows else None
    rows = _rows(made)
    return rows.value if rows else None


def _cost(node: Node, hours: Figure | None, load: Load, fleet: Fleet | None) -> Figure | None:
    if hours is None or fleet is None or fleet.price is None or not node.needs.accelerator:
        return None
    times = f" x {load.num_devices} devices" if load.num_devices > 1 else ""
    basis = f"{hours.value:.3g} h{times} x {fleet.price:g} an hour; {hours.basis}"
    return Figure(hours.value * load.num_devices * fleet.price, basis)
