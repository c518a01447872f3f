"""What people's grades of a run come to: means with intervals, agreement, the share of task types.

A task's grade is the mean of its graders'. The means of all generated tasks weigh kept and dropped
tasks by how many there are of each, because a sample holds about as many of one as of the other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

from engine.cli import review_sample
from engine.cli.review_sample import DROPPED, GENERATED, KEPT, Source
from engine.rendering.rubrics import ACCURACY, DERIVED, RUBRICS, TYPE, TYPES, Rubric
from engine.runtime import grades
from engine.runtime.runs import Run
from engine.runtime.store import Store

Row = Mapping[str, Any]  # of schemas/grades.schema.json
SEED = 42  # of the bootstrap, so that the same grades give the same interval


@dataclass(frozen=True, slots=True)
class Graded:
    """One task with the grades of all who graded it."""

    task: str
    image: str
    of_set: str
    by_grader: dict[str, Mapping[str, Any]]

    def levels(self, rubric: Rubric) -> list[int]:
        """Return what its graders said to a rubric, those who said anything."""
        found = (rubric.level(said.get(rubric.name)) for said in self.by_grader.values())
        return [level for level in found if level is not None]


@dataclass(frozen=True, slots=True)
class Measure:
    """What has a mean: a rubric, or what follows from one."""

    name: str
    rubric: Rubric
    points: tuple[float, ...]  # of each level, from 0 to 1


MEASURES = (
    *(
        Measure(
            rubric.name,
            rubric,
            tuple(n / (len(rubric.levels) - 1) for n, _ in enumerate(rubric.levels)),
        )
        for rubric in RUBRICS
        if rubric is not TYPE
    ),
    *(
        Measure(name, ACCURACY, tuple(float(value in right) for value in ACCURACY.values))
        for name, right in DERIVED.items()
    ),
)


def of_run(run: Run, store: Store) -> dict[str, Any] | None:
    """Return the `grades` of schemas/summary.schema.json, or None when nobody graded the run."""
    found = []
    for source in review_sample.sources(run):
        rows = [row for row in grades.rows(store, source.filter.key) if row["grades"]]
        if _by_task(rows):
            found.append(_of_source(source, rows, _population(source, store)))
    return {"tasks": found} if found else None


def _of_source(
    source: Source, rows: Sequence[Row], population: Mapping[str, int]
) -> dict[str, Any]:
    tasks = _by_task(rows)
    graders = sorted({row["grader"] for row in rows})
    sets = {name: [task for task in tasks if task.of_set == name] for name in (KEPT, DROPPED)}
    shown = {GENERATED: tasks} if _speaks_for_all(sets, population) else {}
    shown |= {name: chosen for name, chosen in sets.items() if chosen}
    least = min(len(_types(chosen)) for chosen in shown.values())
    return {
        "arms": list(source.arms),
        "repaired": source.is_repaired,
        "graders": graders,
        "num_tasks": len(tasks),
        "population": dict(population),
        "sets": [_of_set(name, chosen, population, least) for name, chosen in shown.items()],
        "effects": _effects(tasks, population) if GENERATED in shown else [],
        "agreement": _agreement(tasks, graders),
    }


def _of_set(
    name: str, tasks: Sequence[Graded], population: Mapping[str, int], least: int
) -> dict[str, Any]:
    means = [_mean(measure, tasks, population) for measure in MEASURES]
    return {
        "set": name,
        "num_tasks": len(tasks),
        "num_images": len({task.image for task in tasks}),
        "diversity": _diversity(tasks, least),
        "means": [found for found in means if found is not None],
    }


def _mean(
    measure: Measure, tasks: Sequence[Graded], population: Mapping[str, int]
) -> dict[str, Any] | None:
    """Return the mean of a measure; None when not every set of these tasks was graded by it."""
    from engine.statistics.means import Strata, mean

    said = _said(measure, tasks)
    sets = [task.of_set for task, _ in said]
    if not said or set(sets) != {task.of_set for task in tasks}:
        return None
    found = mean(
        [value for _, value in said],
        [task.image for task, _ in said],
        Strata(sets, population) if len(set(sets)) > 1 else None,
        seed=SEED,
    )
    told = asdict(found)
    told["num_tasks"], told["num_images"] = told.pop("num_items"), told.pop("num_clusters")
    return {"rubric": measure.name, **told}


def _effects(tasks: Sequence[Graded], population: Mapping[str, int]) -> list[dict[str, Any]]:
    """Return how far the kept tasks are from all generated ones, where both kinds were graded."""
    from engine.statistics.means import Strata, effect

    found = []
    for measure in MEASURES:
        said = _said(measure, tasks)
        sets = [task.of_set for task, _ in said]
        if set(sets) == {KEPT, DROPPED}:
            images, values = [task.image for task, _ in said], [value for _, value in said]
            moved = effect(values, images, Strata(sets, population), KEPT, seed=SEED)
            found.append({"rubric": measure.name, **asdict(moved)})
    return found


def _said(measure: Measure, tasks: Iterable[Graded]) -> list[tuple[Graded, float]]:
    """Return the tasks that somebody graded by a measure, each with the mean of its graders."""
    graded = [(task, task.levels(measure.rubric)) for task in tasks]
    return [
        (task, sum(measure.points[level] for level in levels) / len(levels))
        for task, levels in graded
        if levels
    ]


def _speaks_for_all(sets: Mapping[str, Sequence[Graded]], population: Mapping[str, int]) -> bool:
    """Tell whether every set that has tasks was graded."""
    return any(population.values()) and all(sets[name] or not population[name] for name in sets)


def _diversity(tasks: Sequence[Graded], least: int) -> dict[str, Any]:
    """Return the share of the 20 types that was found, and what is expected among `least` tasks.

    No interval: more tasks can only find more types.
    """
    from engine.statistics.agreement import rarefied

    chosen = _types(tasks)
    counts = Counter(chosen)
    found = {name: counts[name] for name in TYPES if counts[name]}
    expected = rarefied(list(found.values()), least, len(chosen))
    return {
        "points": 100 * len(found) / len(TYPES),
        "num_types": len(found),
        "num_tasks": len(chosen),
        "types": found,
        "equal_size": least,
        "points_at_equal_size": 100 * expected / len(TYPES),
    }


def _types(tasks: Iterable[Graded]) -> list[str]:
    """Return the type of each task: what most of its graders say, of equals the first."""
    votes = [Counter(levels) for task in tasks if (levels := task.levels(TYPE))]
    return [TYPE.levels[min(vote, key=lambda level: (-vote[level], level))] for vote in votes]


def _agreement(tasks: Sequence[Graded], graders: Sequence[str]) -> list[dict[str, Any]]:
    """Return kappa for every two graders and rubric with tasks that both graded."""
    found = []
    for first, second in combinations(graders, 2):
        for rubric in RUBRICS:
            pairs = [_both(task, first, second, rubric) for task in tasks]
            common = [pair for pair in pairs if pair is not None]
            if common:
                found.append(_agreed(first, second, rubric, common))
    return found


def _agreed(
    first: str, second: str, rubric: Rubric, pairs: Sequence[tuple[int, int]]
) -> dict[str, Any]:
    from engine.statistics.agreement import kappa

    left, right = zip(*pairs, strict=True)
    num_levels = len(rubric.levels) if rubric.is_scale else 0
    return {
        "rubric": rubric.name,
        "graders": [first, second],
        "num_tasks": len(pairs),
        "kappa": kappa(left, right, num_levels=num_levels),
        "weights": "quadratic" if rubric.is_scale else "none",
        "same_percent": 100 * sum(a == b for a, b in pairs) / len(pairs),
    }


def _both(task: Graded, first: str, second: str, rubric: Rubric) -> tuple[int, int] | None:
    said = [task.by_grader.get(name, {}).get(rubric.name) for name in (first, second)]
    left, right = (rubric.level(value) for value in said)
    return None if left is None or right is None else (left, right)


def _by_task(rows: Iterable[Row]) -> list[Graded]:
    found: dict[str, Graded] = {}
    for row in rows:
        name, of_set = str(row["task"]), str(row.get("set"))
        if of_set in (KEPT, DROPPED):
            task = Graded(name, str(row.get("image")), of_set, {})
            found.setdefault(name, task).by_grader[str(row["grader"])] = row["grades"]
    return list(found.values())


def _population(source: Source, store: Store) -> dict[str, int]:
    """Return how many tasks there are of each set; none known when they are not in the store."""
    tasks = store.get(source.filter.key)
    return review_sample.population(tasks) if tasks is not None else {KEPT: 0, DROPPED: 0}
