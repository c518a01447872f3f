"""Every domain of the paper on each of its three bases, from the first stage to the report.

One store holds all of them: what a base does not change is shared, as it is between runs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine import package_data
from tests.rehearsal.rehearser import Rehearser

DOMAINS = {
    "biomed": ("slake", "pathvqa", "vqa_rad", "pmc_vqa"),
    "food": ("recipe1m", "nutrition5k", "food101", "foodseg103"),
    "remote_sensing": ("clrs", "uc_merced", "floodnet", "nwpu_captions"),
}
BASES = {
    "qwen2_vl_2b": ("Qwen/Qwen2-VL-2B-Instruct", "qwen2_vl"),
    "llava_next_llama3_8b": ("llava-hf/llama3-llava-next-8b-hf", "llava_next"),
    "llama_3_2_11b_vision": ("meta-llama/Llama-3.2-11B-Vision-Instruct", "mllama"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("domains")


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_domain_is_rehearsed_on_a_base(
    domain: str, base: str, folder: Path, rehearser: Rehearser
):
    recipe = folder / f"{domain}_{base}.yaml"
    recipe.write_text(_on_base(domain, base))

    done = rehearser("rehearse", recipe, "--store", folder / "store", "--json")

    assert done.code == 0, done.err
    found = done.result
    model, kind = BASES[base]
    assert found["state"] == "finished"
    assert found["rehearsal"]["models"][model] == f"a small {kind} of random weights"
    for arm in found["summary"]["arms"]:
        assert min(arm["funnel"].values()) > 0
        scored = {row["benchmark"]: row["num_items"] for row in arm["scores"]}
        assert {*DOMAINS[domain], "mmstar", "pope"} == scored.keys()
        assert all(scored.values())


def _on_base(domain: str, base: str) -> str:
    """Return the recipe of a domain as one would write it for another base: with its `extends`."""
    text = (package_data.folder("recipes") / f"{domain}.yaml").read_text("utf-8")
    return text.replace("extends: base/qwen2_vl_2b.yaml", f"extends: base/{base}.yaml")
