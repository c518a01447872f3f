"""The same mistakes, each made in a file of every tool that can make it.

`CORRECT` holds a small file per tool that the tool accepts; a mistake changes a few characters of
it. A tool that has nothing alike (DVC has no fine-tuning method) is left out of that mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

Edit = tuple[str, str]

CORRECT: Mapping[str, str] = {
    "adapt": """\
recipe: 1
name: mine
source: {use: image_folder, path: ./pictures}
base:
  model: pocket/base
  method: lora
training:
  learning_rate: 1.0e-4
  warmup_ratio: 0.1
  max_length: 256
  max_steps: 1
benchmarks: {domain: [holdout]}
""",
    "llamafactory": """\
model_name_or_path: ./model
stage: sft
do_train: true
finetuning_type: lora
dataset: rows
dataset_dir: .
template: default
learning_rate: 1.0e-4
warmup_ratio: 0.1
cutoff_len: 256
max_steps: 1
output_dir: made
overwrite_output_dir: true
report_to: none
""",
    "axolotl": """\
base_model: ./model
adapter: lora
lora_r: 8
lora_alpha: 16
lora_target_linear: true
datasets:
  - path: ./rows.jsonl
    type: alpaca
learning_rate: 1.0e-4
warmup_ratio: 0.1
sequence_len: 256
max_steps: 1
micro_batch_size: 1
gradient_accumulation_steps: 1
num_epochs: 1
optimizer: adamw_torch
lr_scheduler: cosine
lora_mlp_kernel: false
lora_qkv_kernel: false
lora_o_kernel: false
special_tokens: {pad_token: <pad>}
output_dir: ./made
""",
    "dvc": """\
vars:
  - rate: 1
stages:
  first:
    cmd: echo ${rate} > first.txt
    outs:
      - first.txt
  second:
    cmd: cp first.txt second.txt
    deps:
      - first.txt
    frozen: false
    outs:
      - second.txt
""",
    "snakemake": """\
configfile: "config.yaml"

rule all:
    input: "second.txt"

rule first:
    output: "first.txt"
    params: rate=config["rate"]
    shell: "echo {params.rate} > {output}"

rule second:
    input: "first.txt"
    output: "second.txt"
    threads: 1
    shell: "cp {input} {output}"
""",
}
CORRECT = {**CORRECT, "check-jsonschema": CORRECT["adapt"]}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One mistake: what it is, how each file gets it, and what a good message would hold."""

    name: str
    title: str
    edits: Mapping[str, tuple[Edit, ...]]
    names: Mapping[str, tuple[str, ...]]  # the words by which a message names what is wrong
    offers: Mapping[str, tuple[str, ...]]  # one of these, and the message says what would be right


def _mistake(
    name: str,
    title: str,
    edits: Mapping[str, tuple[Edit, ...]],
    names: Mapping[str, str],
    offers: Mapping[str, str | tuple[str, ...]] | None = None,
) -> Mistake:
    def tuples(given: Mapping[str, str | tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        pairs = {tool: (v,) if isinstance(v, str) else v for tool, v in given.items()}
        return {**pairs, **({"check-jsonschema": pairs["adapt"]} if "adapt" in pairs else {})}

    whole = {**edits, "check-jsonschema": edits["adapt"]}
    return Mistake(name, title, whole, tuples(dict(names)), tuples(dict(offers or {})))


def _all(value: str, *tools: str) -> dict[str, str]:
    return dict.fromkeys(tools, value)


TRAINERS = ("adapt", "llamafactory", "axolotl")

MISTAKES = (
    _mistake(
        "misspelt-key",
        "a key misspelt (`warmup_ratoi`)",
        {
            **dict.fromkeys(TRAINERS, (("warmup_ratio", "warmup_ratoi"),)),
            "dvc": (("    deps:", "    dpes:"),),
            "snakemake": (('input: "first', 'inptu: "first'),),
        },
        {**_all("warmup_ratoi", *TRAINERS), "dvc": "dpes", "snakemake": "inptu"},
        {**_all("warmup_ratio`", *TRAINERS), "dvc": "'deps'", "snakemake": "'input'"},
    ),
    _mistake(
        "needed-key-misspelt",
        "a needed key misspelt (`learnign_rate`)",
        {
            **dict.fromkeys(TRAINERS, (("learning_rate", "learnign_rate"),)),
            "dvc": (("    cmd: cp", "    cdm: cp"),),
        },
        {**_all("learnign_rate", *TRAINERS), "dvc": "cdm"},
        {
            "adapt": "`learning_rate`",
            "llamafactory": "`learning_rate",
            "dvc": "'cmd'",
            "axolotl": "learning_rate",
        },
    ),
    _mistake(
        "peers-spelling",
        "a key as another tool spells it",
        {
            "adapt": (("max_length", "cutoff_len"),),
            "llamafactory": (("cutoff_len", "sequence_len"),),
            "axolotl": (("sequence_len", "cutoff_len"),),
            "dvc": (("    deps:", "    input:"),),
            "snakemake": (('input: "first', 'deps: "first'),),
        },
        {
            "adapt": "cutoff_len",
            "llamafactory": "sequence_len",
            "axolotl": "cutoff_len",
            "dvc": "input",
            "snakemake": "deps",
        },
        {
            "adapt": "max_length",
            "llamafactory": "cutoff_len",
            "axolotl": "sequence_len",
            "dvc": "'deps'",
            "snakemake": "'input'",
        },
    ),
    _mistake(
        "wrong-type",
        "a word where a number belongs",
        {
            **dict.fromkeys(TRAINERS, (("learning_rate: 1.0e-4", "learning_rate: fast"),)),
            "dvc": (("frozen: false", "frozen: maybe"),),
            "snakemake": (("threads: 1", 'threads: "many"'),),
        },
        {**_all("learning_rate|fast", *TRAINERS), "dvc": "frozen", "snakemake": "threads|many"},
        {**_all("number|float", *TRAINERS), "dvc": "bool", "snakemake": "int"},
    ),
    _mistake(
        "unknown-method",
        "a method that does not exist (`loara`)",
        {
            "adapt": (("method: lora", "method: loara"),),
            "llamafactory": (("finetuning_type: lora", "finetuning_type: loara"),),
            "axolotl": (("adapter: lora", "adapter: loara"),),
        },
        _all("loara|fine-tuning method", *TRAINERS),
        {"adapt": ("`lora`", "'lora'", '"lora"'), **_all("'lora'", "llamafactory", "axolotl")},
    ),
    _mistake(
        "out-of-range",
        "a value out of its range (`-1.0`)",
        dict.fromkeys(TRAINERS, (("learning_rate: 1.0e-4", "learning_rate: -1.0"),)),
        _all("learning_rate|learning rate", *TRAINERS),
        _all("greater than|at least|above|more than|minimum|positive", *TRAINERS),
    ),
    _mistake(
        "duplicate-key",
        "a key twice",
        {
            **dict.fromkeys(
                TRAINERS,
                (("warmup_ratio: 0.1\n", "warmup_ratio: 0.1\nTWICElearning_rate: 3.0e-4\n"),),
            ),
            "dvc": (
                ("    frozen: false\n", "    frozen: false\n    cmd: cp first.txt other.txt\n"),
            ),
            "snakemake": (("    threads: 1\n", "    threads: 1\n    threads: 2\n"),),
        },
        {**_all("learning_rate", *TRAINERS), "dvc": "cmd", "snakemake": "threads"},
    ),
    _mistake(
        "missing-key",
        "a required key left out",
        {
            "adapt": (("  model: pocket/base\n", ""),),
            "llamafactory": (("model_name_or_path: ./model\n", ""),),
            "axolotl": (("base_model: ./model\n", ""),),
            "dvc": (("    cmd: cp first.txt second.txt\n", ""),),
        },
        {
            "adapt": "model",
            "llamafactory": "model_name_or_path",
            "axolotl": "base_model",
            "dvc": "cmd",
        },
    ),
    _mistake(
        "missing-data",
        "data that is not there",
        {
            "adapt": (("./pictures", "./picturez"),),
            "llamafactory": (("dataset: rows", "dataset: rowz"),),
            "axolotl": (("./rows.jsonl", "./rowz.jsonl"),),
            "dvc": (("      - first.txt\n    frozen", "      - firzt.txt\n    frozen"),),
            "snakemake": (('input: "first.txt"', 'input: "firzt.txt"'),),
        },
        {
            "adapt": "picturez",
            "llamafactory": "rowz",
            "axolotl": "rowz",
            "dvc": "firzt",
            "snakemake": "firzt",
        },
    ),
    _mistake(
        "tab",
        "a tab in the indentation",
        {
            "adapt": (("  learning_rate", "\tlearning_rate"),),
            "llamafactory": (("dataset: rows", "dataset:\n\t- rows"),),
            "axolotl": (("  - path", "\t- path"),),
            "dvc": (("      - first.txt\n    frozen", "\t- first.txt\n    frozen"),),
            "snakemake": (('    input: "first.txt"', '\tinput: "first.txt"'),),
        },
        _all("tab|\\t", "adapt", "llamafactory", "axolotl", "dvc", "snakemake"),
        _all("space", "adapt", "llamafactory", "axolotl", "dvc", "snakemake"),
    ),
    _mistake(
        "unknown-reference",
        "a reference to nothing",
        {
            "adapt": (("max_steps: 1", "max_steps: ${training.stepz}"),),
            "llamafactory": (("max_steps: 1", "max_steps: ${stepz}"),),
            "dvc": (("${rate}", "${rat}"),),
            "snakemake": (('config["rate"]', 'config["rat"]'),),
        },
        {"adapt": "training.stepz", "llamafactory": "stepz", "dvc": "rat", "snakemake": "rat"},
        {"dvc": "'rate'", "snakemake": "'rate'"},
    ),
    _mistake(
        "three-at-once",
        "three of them in one file",
        {
            "adapt": (("warmup_ratio", "warmup_ratoi"), ("lora", "loara"), ("1.0e-4", "fast")),
            "llamafactory": (
                ("warmup_ratio", "warmup_ratoi"),
                ("lora", "loara"),
                ("1.0e-4", "fast"),
            ),
            "axolotl": (
                ("warmup_ratio", "warmup_ratoi"),
                ("r: lora", "r: loara"),
                ("1.0e-4", "fast"),
            ),
            "dvc": (
                ("    deps", "    dpes"),
                ("frozen: false", "frozen: maybe"),
                ("${rate}", "${rat}"),
            ),
            "snakemake": (
                ('input: "first', 'inptu: "first'),
                ("threads: 1", 'threads: "many"'),
                ('config["rate"]', 'config["rat"]'),
            ),
        },
        {
            **dict.fromkeys(TRAINERS, ("warmup_ratoi", "loara", "fast")),
            "dvc": ("dpes", "frozen", "rat}"),
            "snakemake": ("inptu", "threads", "'rat'"),
        },
    ),
)


def text(tool: str, mistake: Mistake | None) -> str:
    """Return the file of a tool, correct or with a mistake made in it."""
    whole = CORRECT[tool]
    for old, new in mistake.edits[tool] if mistake else ():
        assert old in whole, f"{tool}: {old!r} is not in the correct file"
        indent = "  " if tool in ("adapt", "check-jsonschema") else ""
        whole = whole.replace(old, new.replace("TWICE", indent), 1)
    return whole


def first_wrong_line(tool: str, mistake: Mistake) -> int:
    """Return the first line that the mistake changed, from one."""
    before, after = CORRECT[tool].splitlines(), text(tool, mistake).splitlines()
    pairs = zip(before, after, strict=False)
    return next((i for i, (a, b) in enumerate(pairs, 1) if a != b), len(after))
