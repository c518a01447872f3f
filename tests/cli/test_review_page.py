"""The page of `adapt review` in a real browser, driven by keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.cli import review_sample
from engine.rendering.rubrics import TYPE
from engine.runtime import grades
from engine.runtime.store import Store
from tests.cli import chromium
from tests.cli.chromium import Chromium
from tests.cli.review_client import reviewing
from tests.cli.tasks_run import made

pytestmark = pytest.mark.skipif(not chromium.PATH, reason="there is no Chromium on this machine")

ATTACK = """</p><script>window.hit=1</script><img src=x onerror="window.hit=1"> &lt;b&gt; {{7*7}}"""
SAVED = "document.getElementById('saved').textContent === 'saved'"
READY = "document.querySelector('.rubric.open') !== null"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chromium]:
    with Chromium(tmp_path / "profile") as found:
        yield found


def shown(browser: Chromium, name: str) -> str:
    return str(browser.value(f"document.getElementById('{name}').textContent"))


def test_three_tasks_graded_by_keys_are_stored(store: Store, browser: Chromium):
    run = made(store)
    with reviewing(store, "--num", "3", "--grader", "anna") as client:
        tasks = client.tasks()
        browser.open(client.url)
        browser.wait_for(READY)
        browser.press("m", "3", "2", "5", "2", "Enter")
        browser.press("x", "1", "1", "1", "1", "Enter")
        browser.press("b", "5", "4", "3", "2")
        browser.wait_for(SAVED)
        place = shown(browser, "place")
        client.stop()
    key = review_sample.source_of(run, None).filter.key
    (artifact,) = grades.Session(store, key, "anna").published()
    rows = {row["task"]: row["grades"] for row in artifact.rows("grades")}

    assert place == "task 3 of 3, 3 graded"
    scales = ("knowledge", "complexity", "accuracy")
    assert [[rows[task][name] for name in scales] for task in tasks] == [
        [3, 2, 5],
        [1, 1, 1],
        [5, 4, 3],
    ]
    assert [rows[task]["consistency"] for task in tasks] == [True, False, True]
    types = [TYPE.values[TYPE.keys.index(key)] for key in "mxb"]
    assert [rows[task]["type"] for task in tasks] == types


def test_undo_skip_and_moving_about_by_keys(store: Store, browser: Chromium):
    made(store)
    with reviewing(store, "--num", "3") as client:
        first, second, third = client.tasks()
        browser.open(client.url)
        browser.wait_for(READY)
        browser.press("ArrowDown", "4", "ArrowRight", "s")
        browser.wait_for(SAVED)
        assert shown(browser, "place") == "task 3 of 3, 1 graded"
        browser.press("ArrowLeft", "s", "ArrowLeft", "u", "u", "u")
        browser.wait_for(SAVED)
        graded = client.get("start").json["graded"]
        browser.press("?")
        assert browser.value("document.getElementById('help').open")

    assert not any(graded[task]["grades"] for task in (first, second, third))
    assert not graded[second]["is_skipped"]


def test_hostile_texts_stay_texts_and_nothing_leaves_the_machine(store: Store, browser: Chromium):
    made(store, text=ATTACK)
    with reviewing(store, "--num", "2") as client:
        browser.open(client.url)
        browser.wait_for(READY)
        browser.press("m", "1", "1", "1", "1", "v")
        browser.wait_for("!document.getElementById('verdict').hidden")
        texts = [shown(browser, n) for n in ("caption", "instruction", "informative", "joined")]
        scripts = browser.value("document.scripts.length")
        pictures = browser.value("document.images.length")

        assert all(ATTACK in text for text in texts)
        assert (scripts, pictures) == (1, 1)
        assert browser.value("window.hit") is None
        assert browser.problems() == []
        own = client.url.rsplit("/", 2)[0]
        assert [url for url in browser.asked_for() if not url.startswith((own, "about:"))] == []


def test_the_policy_stops_what_the_page_would_not_do(store: Store, browser: Chromium):
    made(store)
    with reviewing(store) as client:
        browser.open(client.url)
        browser.wait_for(READY)
        browser.value(
            "(() => { const made = document.createElement('script'); made.id = 'alien';"
            "try { made.textContent = 'window.hit = 1'; document.head.append(made) } catch {} })()"
        )

        assert browser.value("window.hit") is None


def test_the_page_says_when_nobody_keeps_answers_any_more(store: Store, browser: Chromium):
    made(store)
    with reviewing(store) as client:
        browser.open(client.url)
        browser.wait_for(READY)
        browser.press("m")
        browser.wait_for(SAVED)
        client.stop()
        browser.press("3")
        browser.wait_for("!document.getElementById('trouble').hidden")

        assert "adapt review has ended" in shown(browser, "trouble")
        assert browser.value("document.querySelectorAll('.rubric.given').length") == 1


@pytest.mark.parametrize("width", [360, 900, 1600])
def test_nothing_is_wider_than_the_window(store: Store, browser: Chromium, width: int):
    made(store, text="word " * 400 + "x" * 300)
    with reviewing(store) as client:
        browser.size(width, 800)
        browser.open(client.url)
        browser.wait_for(READY)

        assert browser.value("document.documentElement.scrollWidth") <= width
        assert browser.value(
            "(() => { const text = document.getElementById('informative');"
            "return text.scrollHeight > text.clientHeight })()"
        )
