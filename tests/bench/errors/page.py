"""The page of the comparison, written from the results."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any

from tests.bench.errors.mistakes import MISTAKES

HEAD = """\
# The same mistakes, given to several tools

Written by `python -m tests.bench.errors.run`; do not edit. Each tool got a correct file, which it
accepted (one step of training, a pipeline, a plan), and then the same file with one mistake made in
it (mistakes.py). The marks are found in the text by the same rules for every tool (reading.py):

- **key**: the message names what is wrong;
- **line**: a line of the user's file, give or take one (some point below a key); **column**;
- **excerpt**: that line is quoted; **caret**: a `^` on a line of its own;
- **fix**: the message holds what would be right, counted where something can be offered;
- *traceback*: a Python traceback is printed; *accepted*: the exit code is 0.

Times are processor seconds until the command ended, of one run. To measure again:
`python -m tests.bench.errors.run --work FOLDER` (all tools, installed below FOLDER by pip), or with
`--only adapt` ours alone, in ten seconds: the results of the others are kept in `results.json`.
"""
MARKS = {
    "has_line": "line",
    "has_column": "column",
    "has_excerpt": "excerpt",
    "has_caret": "caret",
    "has_offer": "fix",
}


def written(found: Mapping[str, Any]) -> str:
    """Return the page."""
    parts = [HEAD, _tools(found), _totals(found), _cells(found), "## The texts\n"]
    parts += [_texts(mistake.name, mistake.title, found) for mistake in MISTAKES]
    return "\n".join(parts)


def _tools(found: Mapping[str, Any]) -> str:
    rows = [
        f"| {name} | {tool['version']} | `{tool['command']}` | {tool['correct']['cpu_s']} s "
        f"| {tool['date']} |"
        for name, tool in found.items()
    ]
    head = "| tool | version | asked with | the correct file | measured |\n|---|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _totals(found: Mapping[str, Any]) -> str:
    """Return one line for each tool: in how many of its mistakes a message tells what."""
    head = "| tool | refused | key | " + " | ".join(MARKS.values()) + " | no traceback | seconds |"
    lines = ["## In numbers\n", head, "|---" * (len(MARKS) + 5) + "|"]
    for name, tool in found.items():
        all_ = list(tool["mistakes"].values())
        counts = [_is_refused(all_), sum(m["named"] == m["of"] for m in all_)]
        cells = [f"{count}/{len(all_)}" for count in counts]
        for mark in MARKS:
            asked = [m[mark] for m in all_ if m[mark] is not None]
            cells.append(f"{sum(asked)}/{len(asked)}")
        cells.append(f"{sum(not m['has_traceback'] for m in all_)}/{len(all_)}")
        middle = statistics.median(m["cpu_s"] for m in all_)
        lines.append(f"| {name} | {' | '.join(cells)} | {middle:.2f} |")
    return "\n".join(lines) + "\n"


def _is_refused(all_: list[Any]) -> int:
    return sum(mistake["is_refused"] for mistake in all_)


def _cells(found: Mapping[str, Any]) -> str:
    lines = ["## Mistake by mistake\n", "| mistake | " + " | ".join(found) + " |"]
    lines.append("|---" * (len(found) + 1) + "|")
    for mistake in MISTAKES:
        cells = [_cell(tool["mistakes"].get(mistake.name)) for tool in found.values()]
        lines.append(f"| {mistake.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(answer: Any) -> str:
    if answer is None:
        return "-"
    if not answer["is_refused"]:
        return f"*accepted*; {answer['cpu_s']} s"
    named = f"{answer['named']} of {answer['of']} named" if answer["of"] > 1 else "key"
    words = [named] if answer["named"] or answer["of"] > 1 else []
    words += [word for mark, word in MARKS.items() if answer[mark]]
    words += ["*traceback*"] if answer["has_traceback"] else []
    return (
        f"{', '.join(words) or 'nothing of these'}; exit {answer['exit_code']}, {answer['cpu_s']} s"
    )


def _texts(name: str, title: str, found: Mapping[str, Any]) -> str:
    parts = [f"### {title}\n"]
    for tool, results in found.items():
        answer = results["mistakes"].get(name)
        if answer is not None:
            said = answer["said"] or "(nothing)"
            parts.append(
                f"<details><summary>{tool}: exit code {answer['exit_code']}</summary>\n\n"
                f"```text\n{said}\n```\n\n</details>\n"
            )
    return "\n".join(parts)
