from __future__ import annotations

from engine.plan import lock
from engine.plan.builder import _models
from engine.plan.lock import Reference
from engine.plugin import AdapterUse, ModelUse, bind, unbind

COMMIT = "a" * 40


def test_an_adapter_is_pinned_like_a_model():
    use = ModelUse(model="a/base", adapter=AdapterUse(model="a/lora", revision="v1"))

    assert _models({"judge": unbind(use)}) == {("a/base", None), ("a/lora", "v1")}


def test_a_lock_fixes_the_commit_of_an_adapter():
    use = ModelUse(model="./base", adapter=AdapterUse(model="a/lora"))

    assert [one for one, _ in lock.asked(use)] == [Reference("model", "a/lora", None)]
    pinned = lock.pinned(use, {"model a/lora revision": COMMIT})
    assert pinned.adapter == AdapterUse(model="a/lora", revision=COMMIT)


def test_an_adapter_of_a_recipe_is_bound():
    found = bind(ModelUse, {"model": "m", "adapter": {"model": "./lora"}})

    assert found.adapter == AdapterUse(model="./lora")
