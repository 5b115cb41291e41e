"""The tables in the papers' READMEs, made from pivot/reproduce."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from pivot.reproduce import curation, laion_clap, salsa
from pivot.reproduce.numbers import RETRIEVAL, ZERO_SHOT
from pivot.reproduce.papers import PAPERS
from pivot.reproduce.scores import ROWS
from pivot.reproduce.table import Experiment, Paper, downloads, shown

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = re.compile(r"<!-- made from .*?: begin -->\n", re.S), "<!-- end -->"
# Where the main README's table of the demo has the row of a model
DEMO = {"va_rand": "VA from random weights", "va": "VA: frames and sounds, no text"}
DEMO |= {f"at_{key}": f"({key.upper()})" for key in ("ac", "fc", "vc", "rc", "gl", "gc")}
HEAD = ["| | in the paper | command | needs | expected | here |", "|---|---|---|---|---|---|"]


def place(name: str) -> Path:
    """A paper's README."""
    return ROOT / PAPERS[name].configs / "README.md"


def readme(name: str, text: str) -> str:
    """The README with its tables made anew."""
    begin = BEGIN.search(text)
    assert begin
    end = text.index(END, begin.end())
    makers = {"vip-ant": _vip_ant, "curation": _curation, "laion-clap": _laion, "salsa": _salsa}
    tables = makers[name](PAPERS[name])
    return f"{text[: begin.end()]}\n{tables}\n{text[end:]}"


def _row(paper: Paper, each: Experiment, **other: str) -> str:
    expected = ", ".join(map(str, each.expected))
    said = "; ".join(filter(None, (expected, each.note)))
    needs = ", ".join([*each.needs, *each.data])
    here = f"not run: needs {', '.join(downloads(paper.experiments, each))}"
    here += other.get("demo", "")
    name, where = other.get("name", each.name), other.get("where", each.where)
    said = other.get("expected", said)
    return f"| {name} | {where} | `{each.command}` | {needs} | {said} | {here} |"


def _of_models(
    paper: Paper, group: Sequence[Experiment], models: Sequence[str], **other: str
) -> str:
    """Rows of the evaluations of these models, which stand for all; the models' place is named."""
    rows = [*HEAD]
    for each in group:
        model = next((model for model in models if each.name.endswith(f"-{model}")), None)
        if model:
            test = each.name.removesuffix(f"-{model}")
            expected = each.note if other.get("notes") else ""
            more = {"name": f"{test}-MODEL", "expected": expected or "see below"}
            rows.append(_row(paper, each, **{**more, **other, "where": _table(each.where)}))
    rows += [
        "",
        f"The commands are those of {' and '.join(f'`{model}`' for model in models)}. For another "
        "MODEL of the table below put `runs/MODEL` after `evaluate`, and its own `--out`, as "
        "`--list` shows.",
        "",
    ]
    return "\n".join(rows)


def _table(where: str) -> str:
    return where.replace(", vip-AnT", "").replace(", teacher", "")


# ---- VIP-ANT ----------------------------------------------------------------------------------


def _vip_ant(paper: Paper) -> str:
    found = []
    demo = "; demo: last columns below"
    for title, group in paper.groups.items():
        found += [f"## {title}", ""]
        if title.startswith(("Retrieval", "Zero-shot")):
            found += [_of_models(paper, group, ["va"], demo=demo, notes="yes")]
            found += [*(_retrieval() if title.startswith("Retrieval") else _zero_shot()), ""]
        else:
            rows = [_row(paper, e, demo=demo if e.name in DEMO else "") for e in group]
            found += [*HEAD, *rows, ""]
    return "\n".join(found)


def demo_rows() -> dict[str, list[str]]:
    """Rows of the README's table of the demo, by model: zero-shot, A->T, T->A as printed."""
    text = (ROOT / "README.md").read_text().partition("## What the demo shows")[2]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    found = {}
    for model, mark in DEMO.items():
        row = next((row for row in rows if mark in row[0]), None)
        found[model] = ["-"] * 5 if row is None else [cell.strip() for cell in row[1:]]
    return found


def _retrieval() -> list[str]:
    rows = [
        "R@1 / R@10 in percent, text to audio and audio to text (Table 8 is Clotho at 10 s).",
        "",
        "| MODEL | AudioCaps T→A | A→T | Clotho, 18 s T→A | A→T | Clotho, 10 s T→A | A→T "
        "| demo T→A | demo A→T |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    demo = demo_rows()
    for model, row in ROWS.items():
        cells = [f"{p[k]} / {p[k + 1]}" for p in RETRIEVAL[model] for k in (0, 2)]
        _, a1, a10, t1, t10 = demo[model][:5]
        cells += [f"{t1} / {t10}", f"{a1} / {a10}"]
        rows.append(f"| {model} ({row}) | {' | '.join(cells)} |")
    return rows


def _zero_shot() -> list[str]:
    rows = [
        "Percent, in brackets without the prompt; AudioSet is mAP.",
        "",
        "| MODEL | ESC-50 | UrbanSound8K | AudioSet | demo, 24 classes |",
        "|---|---|---|---|---|",
    ]
    demo = demo_rows()
    for model, row in ROWS.items():
        cells = [f"{with_} ({without})" for with_, without in ZERO_SHOT[model].values()]
        rows.append(f"| {model} ({row}) | {' | '.join([*cells, demo[model][0]])} |")
    return rows


# ---- the curation paper -----------------------------------------------------------------------


def _curation(paper: Paper) -> str:
    found = []
    for title, group in paper.groups.items():
        found += [f"## {title}", ""]
        if not title.startswith("Zero-shot"):
            found += [*HEAD, *(_row(paper, each) for each in group), ""]
            continue
        found += [_of_models(paper, group, ["teacher"]), *_accuracies(), ""]
    return "\n".join(found)


def _accuracies() -> list[str]:
    rows = [
        "Percent, with the deviation of three runs. For DS and ADS each test set has its own "
        "MODEL, TEST being `esc50`, `us8k` or `tut17`.",
        "",
        f"| row | MODEL | config | {' | '.join(curation.TESTS.values())} |",
        "|---|---|---|---|---|---|",
    ]
    for row, numbers in (curation.TABLE_2 | curation.TABLE_3).items():
        model = curation.model_of(row, "TEST")
        cells = " | ".join(f"{value} ± {deviation}" for value, deviation in numbers)
        rows.append(f"| {curation.ROWS[row]} | {model} | [{row}.yaml]({row}.yaml) | {cells} |")
    rows.append(
        "| ADS without replay | ads_no_replay-TEST | [ads.yaml](ads.yaml) | 0.6 less | 0.9 less "
        "| 2.1 less |"
    )
    return rows


# ---- LAION-CLAP -------------------------------------------------------------------------------


def _laion(paper: Paper) -> str:
    found = []
    for title, group in paper.groups.items():
        found += [f"## {title}", ""]
        if not title.startswith(("Retrieval", "Zero-shot")):
            found += [*HEAD, *(_row(paper, each) for each in group), ""]
            continue
        models = ["k2c", *laion_clap.RELEASED] if title.startswith("Zero-shot") else ["k2c"]
        shown = [each for each in group if each.name.endswith(tuple(f"-{m}" for m in models))]
        found += [*HEAD, *(_row(paper, each) for each in shown), ""]
        others = dict.fromkeys(each.needs[0] for each in group if each not in shown)
        found += [
            f"Also of {', '.join(others)}: put `runs/MODEL` after `evaluate`, and its own `--out`, "
            "as `--list` shows.",
            "",
        ]
    return "\n".join(found)


# ---- SALSA ------------------------------------------------------------------------------------


def _salsa(paper: Paper) -> str:
    found = []
    models = [f"passt_stage1-{name}" for name in salsa.SETS]
    for title, group in paper.groups.items():
        found += [f"## {title}", ""]
        if not title.startswith("Retrieval"):
            found += [*HEAD, *(_row(paper, each) for each in group), ""]
            continue
        found += [_of_models(paper, group, models), *_ranks(), ""]
    return "\n".join(found)


def _ranks() -> list[str]:
    rows = [
        "mAP@10 / R@1 / R@5 / R@10 in percent, text to audio. SET is `clotho` or `audiocaps`.",
        "",
        "| MODEL | config | Clotho | AudioCaps |",
        "|---|---|---|---|",
    ]
    for row, sets in salsa.TABLE_1.items():
        cells = " | ".join(" / ".join(map(shown, values)) for values in sets)
        rows.append(f"| {row}-SET | [{row}.yaml]({row}.yaml) | {cells} |")
    for row, values in salsa.TABLE_2.items():
        cells = " / ".join(map(shown, values))
        rows.append(f"| {row} (Table 2) | [{row}.yaml]({row}.yaml) | {cells} | - |")
    return rows


def rewrite() -> None:
    """Write the tables of all READMEs anew."""
    for name in PAPERS:
        place(name).write_text(readme(name, place(name).read_text()))
