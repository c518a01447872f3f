"""Any file of a store, damaged in any way: nothing of it is used, every verb still speaks."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest

from engine import cli
from engine.plan.stage import Plan
from tests.chaos import damage, processes
from tests.runtime.fake_stages import PlanBuilder
from tests.runtime.test_disasters import manifests, num_marks, run, start, undisturbed, wait_until

# Of what a dead writer had not published nothing is read: it need not be damaged.
IN_STORE = [p for p in damage.PLACES if p not in ("staging", "digests", "user cache")]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path, list[object]]:
    """A plan, the folder of a run of it that was killed in the middle, and what it would give."""
    folder = tmp_path_factory.mktemp("killed")
    (folder / "fake.yaml").write_text("recipe: 1\nname: fake\nsource: {use: nothing}\n")
    build = PlanBuilder()
    build.add("count")
    build.add("slow", "count", num_batches=6, batch_s=0.1, marks=str(folder / "marks"))
    build.add("double", "slow")
    plan = build.plan()
    engine = start(plan, folder)
    wait_until(lambda: num_marks(folder) >= 4)
    engine.kill()
    engine.communicate()
    processes.wait_until_gone(str(folder), timeout_s=5)
    return plan, folder, undisturbed(plan, folder)


@pytest.mark.parametrize("place", IN_STORE)
def test_whatever_is_damaged_in_a_store_the_next_run_ends_as_if_it_were_whole(
    killed, tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
):
    plan, folder, wanted = killed
    for number, how in enumerate(damage.HOW):
        copy = tmp_path / how
        shutil.copytree(folder, copy)
        path = Random(number).choice(damage.files(copy, place))
        damage.do(path, how, Random(number))
        for words in (["status"], ["store", "gc", "--dry-run"], ["store", "verify"]):
            assert cli.main([*words, "--store", str(copy / "store")]) in (0, 1, 5)
        capsys.readouterr()
        code, output = run(plan, copy)
        assert code == 0, f"{path}: {output}"
        assert manifests(plan, copy / "store") == wanted
