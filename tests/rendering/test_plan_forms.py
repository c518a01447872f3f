"""The plan as text, graph and page; what is said about nodes may hold anything."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from engine.cli.tables import table
from engine.plan.estimate import Figure, Forecast
from engine.rendering import plan_card, plan_graph, plan_layout, plan_page, plan_text
from engine.rendering.plan_card import Card, Cell
from engine.rendering.plan_text import Totals

EVIL = 'x"]:::run; <script>alert(1)</script> `a` #b; \\ [c] {d} | end'


def card(name: str, *parents: str, state: str = "will run", **cells: str) -> Card:
    shown = {column: Cell(text, f"basis of {text}") for column, text in cells.items()}
    return Card(name, name.split("/")[0], state, "never run before", parents, (), shown)


CHAIN = [
    card("collect", state="cached", rows="1,500"),
    card("mix", "collect", rows="~1,500"),
    card("train", "mix", gpu_memory_gb="6.1", wall_h="~2.0 h"),
    card("report", "collect", "mix", "train"),
]


def test_numbers_are_marked_with_how_sure_they_are():
    assert plan_card.mark("recipe: num_rows") == ""
    assert plan_card.mark("at most one for each of 5 pairs of `curate`") == "<="
    assert plan_card.mark("30% of at most 5 tasks, assumed from a paper") == "~"
    assert plan_card.mark("7e18 operations at 30% of the peak rate of h100") == "~"


def test_numbers_are_written_as_people_do():
    assert [plan_card.short(n) for n in (7, 4200, 285_345_723, 1.3e9)] == [
        "7",
        "4.2k",
        "285M",
        "1.3G",
    ]
    assert [plan_card.span(hours) for hours in (55.51, 0.2, 0.002)] == ["55.5 h", "12 min", "7.2 s"]


def test_a_forecast_without_a_figure_has_no_cell():
    cells = plan_card.cells_of(Forecast(rows=Figure(3, "recipe: num_rows")))

    assert cells == {"rows": Cell("3", "recipe: num_rows")}


def test_a_wide_terminal_has_the_reason_beside_the_numbers():
    lines = plan_text.body(CHAIN, Totals(), table, 120).splitlines()

    assert lines[:3] == [
        "  node     state       rows  GPU GB    time  why",
        "  collect  cached     1,500       -       -",
        "  mix      will run  ~1,500       -       -  never run before",
    ]


def test_a_narrow_terminal_has_the_reasons_below():
    lines = plan_text.body(CHAIN, Totals(), table, 50).splitlines()
    at = lines.index("why they run")

    assert max(map(len, lines[:at])) <= 50
    assert lines[at + 1] == "  never run before: mix, train, report"


def test_nodes_of_one_arm_stand_under_its_name():
    cards = [card("mix", rows="1"), card("mix@two", rows="2"), card("report", "mix", "mix@two")]
    lines = plan_text.body(cards, Totals(), table, 120).splitlines()

    assert [line.split()[0] for line in lines[1:5]] == ["mix", "only", "mix", "report"]


def test_a_plan_without_numbers_is_a_plain_list():
    assert plan_text.body([card("count")], Totals(), table, 80) == (
        "  count  will run  never run before"
    )


def test_upstream_reasons_are_put_together():
    one = card("a")._replace(reason="upstream: its input `x` will run")
    other = card("b")._replace(reason="upstream: its input `y` will run")

    assert plan_card.by_reason([one, other]) == {
        "upstream: an input of theirs will run": ["a", "b"]
    }


def test_mermaid_has_every_node_and_edge():
    text = plan_graph.mermaid("x", CHAIN)

    assert text.splitlines()[:4] == ["---", 'title: "plan of x"', "---", "flowchart LR"]
    assert 'n0["collect<br/>1,500 rows<br/>cached"]:::cached' in text
    assert len(re.findall(r"^  n\d+ --> n\d+$", text, re.MULTILINE)) == 5


def test_no_text_of_a_recipe_breaks_out_of_a_mermaid_label():
    text = plan_graph.mermaid(EVIL, [card("a")._replace(id=EVIL, reason=EVIL)])
    (label,) = re.findall(r'^  n0\["(.*)"\]:::run$', text, re.MULTILINE)

    assert not set(label.replace("<br/>", "")) & set('"<>`[](){}|\\&')


def test_no_text_of_a_recipe_breaks_out_of_a_dot_string():
    text = plan_graph.dot(EVIL, [card("a")._replace(id=EVIL, reason=EVIL)])
    without_strings = re.sub(r'"(?:[^"\\]|\\.)*"', "S", text)

    assert "script" not in without_strings
    assert '"' not in without_strings


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.titles: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.titles += [value for name, value in attrs if name == "title" and value]


def read(text: str) -> Reader:
    reader = Reader()
    reader.feed(text)
    return reader


def test_the_page_has_a_box_for_every_node_and_the_basis_of_every_number():
    page = read(plan_page.page("x", CHAIN, Totals(("a sum",), ("a warning",), "on 1 x H100")))

    assert page.tags.count("rect") == len(CHAIN)
    assert page.titles == ["basis of 1,500", "basis of ~1,500", "basis of 6.1", "basis of ~2.0 h"]


def test_the_page_needs_no_network_and_no_script():
    text = plan_page.page("x", [card("a")._replace(id=EVIL, reason=EVIL)], Totals())

    assert "script" not in read(text).tags
    assert not re.search(r"(?:src|href)=", text)


def test_lines_that_others_imply_are_left_out():
    drawing = plan_layout.layout(CHAIN)

    assert len(drawing.curves) == 3
    assert [box.x for box in drawing.boxes] == sorted({box.x for box in drawing.boxes})


def test_a_large_plan_has_a_table_and_no_drawing():
    cards = [card(f"collect/{number}") for number in range(plan_page.MOST_DRAWN + 1)]

    assert "rect" not in read(plan_page.page("x", cards, Totals())).tags
