"""schemas/README.md is fresh, its links lead somewhere, and its examples are right."""

from __future__ import annotations

import re

import pytest

from engine.recipe import params
from engine.recipe import schema as schemas
from engine.recipe.source import places, read
from engine.recipe.subject import Subject
from tests.rules import reference

PAGE = reference.page()
HEADINGS = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", PAGE, flags=re.S), flags=re.M)


def test_the_reference_is_fresh():
    """After a change of a schema or a plug-in: `make golden`."""
    assert reference.PAGE.read_text("utf-8") == PAGE


def test_every_link_inside_the_page_leads_to_one_heading():
    anchors = [reference.anchor(title) for title in HEADINGS]
    links = re.findall(r"\]\(#([^)]+)\)", PAGE)

    assert {link: anchors.count(link) for link in links if anchors.count(link) != 1} == {}


def test_nothing_reads_as_html():
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", PAGE, flags=re.S)

    assert re.findall(r"<\w[^>]*>", prose) == []


@pytest.mark.parametrize(
    ("name", "use"), reference.examples().items(), ids=lambda value: str(value)[:30]
)
def test_every_example_of_a_plug_in_is_valid(name: str, use: dict[str, object]):
    family, _, own = name.partition("/")
    settings = {key: value for key, value in use.items() if key != "use"}
    subject = Subject(places(read(reference.scalar(settings), name)))

    assert schemas.mistakes(settings, params.fragment(family, own), subject) == []


def test_every_key_is_explained():
    rows = re.findall(r"^\| `[a-zA-Z_]+` \|.*\|(.*)\|(.*)\|$", PAGE, re.M)

    assert len(rows) > 150
    tables_of_tasks = len(reference.NEEDED)
    assert sum(not meaning.strip() for _, meaning in rows) <= tables_of_tasks
