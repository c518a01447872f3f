"""What a node asks of a device, by its stage. The real loops are in engine/training and backends.

Hours are theory: operations over an assumed share of the device's rate, bytes over one of its
bandwidth.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, TypeVar

from engine.forecast import answering, flow, training
from engine.forecast.answering import Requests
from engine.forecast.devices import Device
from engine.forecast.flow import NOTHING, Inputs, Made
from engine.forecast.load import IDLE, Load
from engine.models._known import KnownModel, ModelFinder
from engine.plan.estimate import Figure
from engine.plan.stage import Node

_CHARS_PER_TOKEN = 4.0
Value = TypeVar("Value")


class Workshop:
    """Finds models and remembers what was worked out: many nodes of a matrix are alike."""

    def __init__(self, models: ModelFinder, device: Device | None = None) -> None:
        self.models = models
        self.device = device
        self._memo: dict[Hashable, Any] = {}

    def load(self, node: Node, made: Made, inputs: Inputs) -> Load:
        """Return what a node takes."""
        if node.stage in ("train", "synthesizer"):
            return self._training(node, made)
        if node.stage == "convert":
            return self._converting(node)
        if node.stage == "filter":
            return self._judging(node, inputs)
        if node.stage in ("generate", "repair", "evaluate.answers"):
            return self._answering(node, made, inputs)
        return IDLE

    def _training(self, node: Node, made: Made) -> Load:
        params, spec = node.params, node.params["training"]
        model = self.models.find(params["model"], params["revision"])
        if model is None or model.architecture is None:
            return Load(note=_unknown(params["model"], model))
        lora = params["lora"] if params.get("method") == "lora" else None
        key = (
            params["model"],
            params["revision"],
            tuple(params["train"]),
            (lora["rank"], tuple(lora["targets"])) if lora else None,
            spec["precision"],
            spec["gradient_checkpointing"],
            spec["global_batch_size"],
            spec["per_device_train_batch_size"],
            spec["max_length"],
        )
        shape = self._once(key, lambda: training.shape_of(model, params, self.device))
        read, text, longest = made.get("read"), made.row_tokens, spec["max_length"]
        return training.load_of(model.architecture, shape, read, text, longest, self.device)

    def _converting(self, node: Node) -> Load:
        model = self.models.find(node.params["model"], node.params["revision"])
        if model is None or model.architecture is None:
            return Load(note=_unknown(node.params["model"], model))
        return Load(disk_gb=training.weights_on_disk(model.architecture))

    def _judging(self, node: Node, inputs: Inputs) -> Load:
        tasks = inputs.get("tasks", NOTHING).get("tasks")
        found = IDLE
        for use in node.params["filters"]:
            for model, asked in _inquiries(use, node.prompts):
                found = _joined(found, self._asking(model, tasks, asked))
        return found

    def _answering(self, node: Node, made: Made, inputs: Inputs) -> Load:
        params = node.params
        if node.stage == "generate":
            pairs = inputs.get("pairs", NOTHING).get(params["row_set"])
            new = min(params["max_new_tokens"], flow.WRITTEN_TASK_TOKENS)
            rounds = 1 if params["answer_temperature"] is None else 1 + 2 * params["num_tasks"]
            rounds += params["num_samples"] - 1
            asked = Requests(flow.CAPTION_TOKENS + 2 * flow.TURN_TOKENS, new, True, rounds)
            return self._asking(params["generator"], pairs, asked)
        if node.stage == "repair":
            dropped = inputs.get("tasks", NOTHING).get("dropped")
            new = min(params["max_new_tokens"], flow.WRITTEN_TASK_TOKENS)
            text = flow.CAPTION_TOKENS + flow.TASK_TOKENS + 4 * flow.TURN_TOKENS
            return self._asking(params["generator"], dropped, Requests(text, new, True))
        new = min(params["max_new_tokens"], flow.WRITTEN_ANSWER_TOKENS)
        asked = Requests(4 * flow.TURN_TOKENS, new, True)
        return self._asking(params["model"], made.get("answers"), asked)

    def _asking(self, use: Mapping[str, Any], rows: Figure | None, asked: Requests) -> Load:
        model = self.models.find(use["model"], use["revision"])
        if model is None or model.architecture is None:
            return Load(note=_unknown(use["model"], model))
        backend = use["backend"]
        key = (use["model"], use["revision"], repr(backend), asked)
        shape = self._once(key, lambda: answering.shape_of(model, backend, asked, self.device))
        return answering.load_of(model.architecture, shape, asked, rows, self.device)

    def _once(self, key: Hashable, make: Callable[[], Value]) -> Value:
        found: Value | None = self._memo.get(key)
        if found is None:
            found = self._memo[key] = make()
        return found


def _inquiries(
    use: Mapping[str, Any], prompts: Mapping[str, str]
) -> Iterator[tuple[Mapping[str, Any], Requests]]:
    """Yield the models that a filter asks about every task, and what."""
    for judged in (use, *use.get("judges", ())):
        text = len(prompts.get(judged.get("prompt", ""), "")) / _CHARS_PER_TOKEN
        text += flow.TASK_TOKENS
        if "judge" in judged:
            sees_image = judged.get("sees", "caption") != "caption"
            yield judged["judge"], Requests(text, 1, sees_image)
        elif "model" in judged:  # it answers the task itself; only `difficulty` lets it look
            new = min(judged["max_new_tokens"], flow.WRITTEN_ANSWER_TOKENS)
            num_answers = judged.get("num_answers", 1)
            yield judged["model"], Requests(text, new, "num_answers" in judged, num_answers)


def _unknown(name: str, model: KnownModel | None) -> str:
    if model is None:
        return f"unknown model `{name}`: no config of it is on this machine"
    return f"unknown model `{name}`: no formula for the type `{model.kind}`"


def _joined(one: Load, other: Load) -> Load:
    """Return the loads of two models of one node: the larger peak, the sum of the rest."""
    if one is IDLE:
        return other
    peaks = [load.gpu_memory_gb for load in (one, other) if load.gpu_memory_gb]
    return Load(
        tokens=_sum(one.tokens, other.tokens),
        gpu_memory_gb=max(peaks, key=lambda peak: peak.value, default=None),
        wall_h=_sum(one.wall_h, other.wall_h),
        num_devices=max(one.num_devices, other.num_devices),
        note=one.note or other.note,
    )


def _sum(one: Figure | None, other: Figure | None) -> Figure | None:
    if one is None or other is None:
        return None
    return Figure(one.value + other.value, f"{one.basis}; {other.basis}")
