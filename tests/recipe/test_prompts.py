from __future__ import annotations

import pytest

from engine import package_data
from engine.prompts import environment
from engine.recipe.prompts import variables

TEMPLATES = sorted(package_data.folder("prompt_templates").rglob("*.j2"))


def jinja_finds(text: str) -> set[str]:
    from jinja2 import meta

    return meta.find_undeclared_variables(environment().parse(text))


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: f"{path.parent.name}@{path.stem}")
def test_the_variables_of_every_template_are_those_that_jinja_finds(path):
    text = path.read_text("utf-8")

    assert variables(text) == jinja_finds(text)


@pytest.mark.parametrize(
    "text",
    [
        "{{ a }} and {{ b.c }} {{ d['e'] }} {{ f | upper | default('g') }}",
        "{% for h in items %}{{ loop.index }}. {{ h }}{% endfor %}",
        "{% for key, value in pairs %}{{ key }}{{ value }}{% endfor %}",
        "{% if not a and b == 'c' %}x{% elif d is defined %}y{% endif %}",
        "{% set e = a %}{{ e }}{{ range(n) }}",
        "{# {{ hidden }} #}plain {{ 'text' }}",
        "{{ a|join(sep) }}",
    ],
)
def test_what_templates_may_hold_is_read_as_jinja_reads_it(text: str):
    assert variables(text) == jinja_finds(text)
