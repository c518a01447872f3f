"""A comparison of two experiments for people: in a terminal, on a pull request, as a page.

Every form reads the same document (schemas/diff.schema.json), so that none can claim more than
another. Values come from recipes and are untrusted: Markdown and HTML escape them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.rendering import verdicts
from engine.rendering.templates import page_template

Found = Mapping[str, Any]
MAX_VALUE = 60  # characters of a value
MAX_OWN = 4  # names of nodes that one change moves
MAX_NODES = 12  # names before the rest is counted


def verdict(found: Found) -> str:
    """Return in one line what a reviewer wants to know first."""
    if found["new"]["kind"] == "lock":
        num = verdicts.counted(len(found["outside"]), "locked fact")
        verb = "differs" if len(found["outside"]) == 1 else "differ"
        return f"{num} {verb}, {found['num_kept']} are the same"
    meant = [c for c in found["changes"] if not c["effect"]["neutral"]]
    num_outside = len(found["outside"])
    if not found["changes"] and not found["reruns"] and not found["removed"]:
        return "no difference in meaning: nothing runs again"
    told = [verdicts.counted(len(meant), "change") + " in meaning"] if meant else []
    if num_outside:
        told.append(verdicts.counted(num_outside, "change") + " outside the recipe")
    if not told:
        told.append("no change that could change a result")
    rows = ", training rows unchanged" if found["keeps_training_rows"] else ""
    return f"{' and '.join(told)}: {_reruns(found)}{rows}"


def text(found: Found) -> str:
    """Return the form for a terminal."""
    lines = [f"{found['old']['name']} -> {found['new']['name']}", verdict(found), ""]
    for change in found["changes"]:
        lines += [f"  {_said(change)}", *(f"      {line}" for line in _details(change))]
    for item in found["outside"]:
        lines.append(f"  {item['kind']} {_outside(item)}")
        lines += [f"      {line}" for line in (item["text"] or "").splitlines()]
        if item["nodes"]:
            lines.append(f"      runs again: {_names(item['nodes'])}")
    lines += _section("runs again", [_node_line(node) for node in found["reruns"]])
    lines += _section("no longer needed", found["removed"])
    lines += _section("scores", [_score(row) for row in found["scores"]])
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n")


def markdown(found: Found) -> str:
    """Return the form for a comment on a pull request."""
    old, new = (_code(found[side]["name"]) for side in ("old", "new"))
    lines = [f"### {_sentence(verdict(found))}", "", f"{old} → {new}", ""]
    lines += _change_table(found["changes"])
    lines += _outside_list(found["outside"])
    lines += _score_table(found["scores"])
    if found["reruns"] or found["removed"]:
        nodes = [f"- {_escaped(_node_line(node))}" for node in found["reruns"]]
        nodes += [f"- {_code(name)}: no longer needed" for name in found["removed"]]
        lines += _folded(f"Stages ({_reruns(found)})", nodes)
    return "\n".join(lines).rstrip("\n")


def html(found: Found) -> str:
    """Return the form as one page that needs no network and no script."""
    page = page_template("comparison").render(
        found=found,
        verdict=_sentence(verdict(found)),
        said=_said,
        details=_details,
        outside=_outside,
        names=_names,
        scored=_scored,
    )
    return str(page)


FORMS: dict[str, Callable[[Found], str]] = {"text": text, "markdown": markdown, "html": html}


def _reruns(found: Found) -> str:
    num, kept = len(found["reruns"]), found["num_kept"]
    if not num and not found["removed"]:
        return f"nothing runs again, {kept} nodes are kept"
    parts = [f"{num} of {num + kept} nodes run again" if num else "nothing runs again"]
    cached = sum(node["cached"] for node in found["reruns"])
    if cached:
        parts.append(f"{cached} of them are in the store")
    if found["cost"]["wall_h"] is not None:
        known, wanted = found["cost"]["num_known"], found["cost"]["num_to_run"]
        part = "" if known == wanted else f" for the {known} of {wanted} that are known"
        parts.append(f"about {_duration(found['cost']['wall_h'])}{part}")
    if found["cost"]["cost"] is not None:
        parts.append(f"about {found['cost']['cost']:.2f} to pay")
    return ", ".join(parts)


def _said(change: Found) -> str:
    """Return what changed, with the places that said so."""
    path, kind = change["path"], change["kind"]
    if kind == "added":
        what = f"{path} added: {_value(change['new'])}"
    elif kind == "removed":
        what = f"{path} removed, was {_value(change['old'])}"
    elif kind == "moved":
        what = f"{path} moved from place {change['old'] + 1} to place {change['new'] + 1}"
    else:
        what = f"{path}: {_value(change['old'])} -> {_value(change['new'])}"
    where = change["new_place"] or change["old_place"]
    return f"{what}  ({where})" if where else what


def _details(change: Found) -> list[str]:
    effect = change["effect"]
    if not effect["known"]:
        return ["its own effect is not known: it is valid only together with the others"]
    if effect["neutral"]:
        return ["neutral: no result depends on it"]
    told = []
    if effect["runs"]:
        told.append(f"runs again: {_names(effect['runs'], MAX_OWN)}")
    for word in ("adds", "drops"):
        if effect[word]:
            num = verdicts.counted(len(effect[word]), "node")
            told.append(f"{word} {num}: {_names(effect[word], MAX_OWN)}")
    if effect["num_downstream"]:
        told.append(f"then {verdicts.counted(effect['num_downstream'], 'node')} downstream")
    return told + _takes(effect["takes"])


def _takes(takes: Found | None) -> list[str]:
    """Return rows, hours and cost of one change on a line, as far as they are known."""
    if takes is None:
        return []
    told = []
    before, now = takes["rows"]
    if before is not None and now is not None and before != now:
        told.append(f"training rows {before:,.0f} -> {now:,.0f}")
    if takes["wall_h"] is not None:
        told.append(f"about {_duration(takes['wall_h'])}")
    if takes["cost"] is not None:
        told.append(f"about {takes['cost']:.2f} to pay")
    return [", ".join(told)] if told else []


def _outside(item: Found) -> str:
    if item["kind"] == "locked fact":
        return f"{item['path']}: {_value(item['old'])} -> {_value(item['new'])}"
    path = item["path"].split(".", maxsplit=1)[-1] if "." in item["path"] else item["path"]
    if item["kind"] == "stage version":
        return f"of {_names(item['nodes'])}: {item['old']} -> {item['new']}"
    if item["kind"] == "prompt":
        return f"{path}: its text changed"
    return f"{path}: {_value(item['old'])} -> {_value(item['new'])}"


def _node_line(node: Found) -> str:
    state = node["state"]
    if state == "upstream":
        why = f"because of {_names(node['roots'])}"
    elif state == "added":
        why = "new"
    else:
        why = "; ".join(node["changes"][:3])
        why += f" and {len(node['changes']) - 3} more" if len(node["changes"]) > 3 else ""
    return f"{node['id']}: {why}{' (in the store)' if node['cached'] else ''}"


def _score(row: Found) -> str:
    told = f"{_scored(row)}: adapted {row['old']['adapted']:.1f}"
    told += f" -> {row['new']['adapted']:.1f}"
    paired = row["paired"]
    if paired is None:
        return f"{told}, not compared item by item: {row['reason']}"
    return (
        f"{told}, difference {paired['difference']:+.1f}, "
        f"95 % interval {verdicts.interval_text(paired)}, "
        f"{verdicts.counted(paired['num_items'], 'item')}"
    )


def _scored(row: Found) -> str:
    """Return the benchmark of a score row, and its arm where there are several."""
    arms = ", ".join(row["arms"])
    return f"{arms}: {row['benchmark']}" if arms not in ("", "main") else str(row["benchmark"])


def _change_table(changes: Sequence[Found]) -> list[str]:
    if not changes:
        return []
    rows = ["| change | from | to | effect |", "| --- | --- | --- | --- |"]
    for change in changes:
        place = change["new_place"] or change["old_place"]
        name = _code(change["path"]) + (f"<br>{_escaped(place)}" if place else "")
        old = "-" if change["kind"] == "added" else _code(_value(change["old"]))
        new = "-" if change["kind"] == "removed" else _code(_value(change["new"]))
        effect = "<br>".join(_escaped(line) for line in _details(change))
        rows.append(f"| {name} | {old} | {new} | {effect} |")
    return [*rows, ""]


def _outside_list(outside: Sequence[Found]) -> list[str]:
    lines = [
        f"- **{item['kind']}** {_escaped(_outside(item))}"
        + (f"; runs again: {_escaped(_names(item['nodes']))}" if item["nodes"] else "")
        for item in outside
    ]
    for item in outside:
        if item["text"]:
            lines += ["", *_folded(f"Text of {item['path']}", [_fenced(item["text"])])]
    return [*lines, ""] if lines else []


def _score_table(scores: Sequence[Found]) -> list[str]:
    if not scores:
        return []
    rows = [
        "| benchmark | adapted before | adapted now | difference | 95 % interval | items |",
        "| --- | ---: | ---: | ---: | --- | ---: |",
    ]
    for row in scores:
        paired = row["paired"]
        more = (
            f"{paired['difference']:+.1f} | {verdicts.interval_text(paired)} | "
            f"{paired['num_items']:,}"
            if paired
            else f"- | {_escaped(str(row['reason']))} | -"
        )
        old, new = row["old"]["adapted"], row["new"]["adapted"]
        rows.append(f"| {_escaped(_scored(row))} | {old:.1f} | {new:.1f} | {more} |")
    return [*rows, ""]


def _folded(title: str, lines: Sequence[str]) -> list[str]:
    head = f"<details><summary>{_escaped(title)}</summary>"
    return [head, "", *lines, "", "</details>", ""]


def _fenced(value: str) -> str:
    ticks = max((len(run) for run in re.findall(r"`+", value)), default=0)
    fence = "`" * max(3, ticks + 1)
    return f"{fence}diff\n{value}\n{fence}"


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return ["", title, *(f"  {line}" for line in lines)] if lines else []


def _names(names: Sequence[str], most: int = MAX_NODES) -> str:
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _value(value: Any) -> str:
    found = json.dumps(value, ensure_ascii=False)
    return found if len(found) <= MAX_VALUE else found[: MAX_VALUE - 3] + "..."


def _duration(hours: float) -> str:
    minutes = hours * 60
    if minutes < 1:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{hours:.1f} h"


def _sentence(value: str) -> str:
    return value[:1].upper() + value[1:]


def _code(value: str) -> str:
    """Return text as Markdown code that fits into a table cell."""
    inner = value.replace("|", "\\|").replace("\n", " ")
    ticks = "`" * (max((len(run) for run in re.findall(r"`+", inner)), default=0) + 1)
    space = " " if "`" in inner else ""
    return f"{ticks}{space}{inner}{space}{ticks}"


def _escaped(value: str) -> str:
    """Return text that Markdown and the HTML in it show as it is."""
    flat = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("\n", " ")
    return re.sub(r"([\\`*_\[\]|#@])", r"\\\1", flat)
