"""VIP-ANT's experiments: the table, its configs and README, the dry run, the real run.

`python tests/test_reproduce.py` rewrites the tables in configs/vip_ant/README.md.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from pivot.cli import main
from pivot.errors import DataError, SettingsError
from pivot.reproduce.command import compare, lines, run
from pivot.reproduce.dry_run import Attempt, attempt
from pivot.reproduce.numbers import RETRIEVAL, ZERO_SHOT
from pivot.reproduce.scores import ROWS
from pivot.reproduce.table import Expected, Experiment, choose, downloads
from pivot.reproduce.vip_ant import DATA, EXPERIMENTS, GROUPS
from pivot.settings import Reproduce

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs" / "vip_ant"
BEGIN, END = re.compile(r"<!-- made from .*?: begin -->\n", re.S), "<!-- end -->"
# Where the README's table of the demo has the row of a model
DEMO = {"va_rand": "VA from random weights", "va": "VA: frames and sounds, no text"}
DEMO |= {f"at_{key}": f"({key.upper()})" for key in ("ac", "fc", "vc", "rc", "gl", "gc")}


def named(name: str) -> Experiment:
    return next(each for each in EXPERIMENTS if each.name == name)


# ---- the table --------------------------------------------------------------------------------


def test_every_config_is_in_the_table_and_opens_with_its_command() -> None:
    commands: dict[str, list[str]] = {}
    for each in EXPERIMENTS:
        commands.setdefault(each.config, []).append(f"# {each.command}")
    assert set(commands) == {f"configs/vip_ant/{path.name}" for path in CONFIGS.glob("*.yaml")}
    for config, its in commands.items():
        text = (ROOT / config).read_text().splitlines()
        assert text[0] in its, config
        assert any(line.startswith("# Expected") for line in text[2:5]), config


def test_names_needs_and_downloads_fit() -> None:
    seen: set[str] = set()
    for each in EXPERIMENTS:
        assert each.name not in seen and set(each.needs) <= seen and set(each.data) <= set(DATA)
        seen.add(each.name)
    assert len({each.makes for each in EXPERIMENTS}) == len(EXPERIMENTS)
    assert all(downloads(EXPERIMENTS, each) for each in EXPERIMENTS)


def test_what_an_experiment_needs_comes_along() -> None:
    names = [each.name for each in choose(EXPERIMENTS, ["zero_shot_esc50-at_fc"])]
    assert names[-1] == "zero_shot_esc50-at_fc" and len(names) == 10
    assert names.index("va") < names.index("captions_fc") < names.index("pairs_fc")
    assert len(choose(EXPERIMENTS, ["*"])) == len(choose(EXPERIMENTS, [])) == len(EXPERIMENTS)
    assert downloads(EXPERIMENTS, named("at_fc")) == ["AudioSet", "AudioCaps", "caption pools"]


def test_numbers_agree_with_what_the_paper_says_of_them() -> None:
    """Differences that the paper's text names, from the numbers of its tables."""
    ac, va, rand, gl = (RETRIEVAL[row] for row in ("at_ac", "va", "va_rand", "at_gl"))
    assert [round(a - b, 1) for a, b in zip(va[0][2:], rand[0][2:], strict=True)] == [4.5, 13.6]
    assert round(ZERO_SHOT["va"]["esc50"][0] - ZERO_SHOT["va"]["esc50"][1], 1) == 7.2
    assert round(ZERO_SHOT["va"]["us8k"][0] - ZERO_SHOT["va"]["us8k"][1], 1) == 6.9
    assert round(ZERO_SHOT["at_ac"]["esc50"][0] - ZERO_SHOT["va"]["esc50"][0], 1) == 5.7
    assert round(ZERO_SHOT["at_ac"]["us8k"][0] - ZERO_SHOT["va"]["us8k"][0], 1) == 9.3
    assert gl[0][0] > ac[0][0]
    assert set(ROWS) == set(RETRIEVAL) == set(ZERO_SHOT)


def test_list_says_what_each_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "vip-ant", "--list", "--only", "zero_shot_esc50-va"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy 57.1 %, accuracy without prompt 49.9 %" in shown
    assert "pivot evaluate --config configs/vip_ant/zero_shot_esc50.yaml" in shown
    assert len([line for line in lines(EXPERIMENTS) if line[0] != " "]) == len(EXPERIMENTS)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"only": ("zero_shot",)}, "--only zero_shot: no experiment has this name"),
        ({"configs": "nowhere"}, "--configs nowhere is no folder"),
    ],
)
def test_mistakes(settings: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as error:
        run(Reproduce(paper="vip-ant", out=str(tmp_path), **settings))
    assert said in str(error.value) and "\n" not in str(error.value)


# ---- a run ------------------------------------------------------------------------------------


def asked(only: str, out: Path, **more: object) -> Reproduce:
    return Reproduce(paper="vip-ant", only=(only,), out=str(out), configs=str(CONFIGS), **more)


def test_a_missing_download_is_named_with_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        run(asked("zero_shot_esc50-va", tmp_path))
    line = str(error.value)
    assert line.startswith(f"prepare_audioset needs AudioSet in {tmp_path}/downloads/audioset")
    assert "research.google.com/audioset" in line and "\n" not in line


def test_a_run_does_what_is_missing_and_no_more(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from pivot.reproduce.made_up import clotho

    clotho(tmp_path / "downloads" / "clotho")
    assert run(asked("prepare_clotho", tmp_path)) == 0
    manifest = tmp_path / "data" / "clotho" / "manifest.json"
    made = manifest.stat().st_mtime_ns
    assert "1 of 1 experiments" in capfd.readouterr().out
    assert run(asked("prepare_clotho", tmp_path)) == 0
    assert "0 of 1 experiments" in capfd.readouterr().out
    assert manifest.stat().st_mtime_ns == made


def test_numbers_stand_beside_the_papers(tmp_path: Path) -> None:
    each = Experiment(
        "one", "Table 4", "pivot x --config configs/vip_ant/x.yaml", "runs/one/results.json",
        expected=(
            Expected("accuracy", "zero_shot.accuracy", 57.1),
            Expected("lost", "zero_shot.lost", 1.0),
            Expected("a curve", "curve", None),
        ),
    )  # fmt: skip
    (tmp_path / "runs" / "one").mkdir(parents=True)
    (tmp_path / each.makes).write_text('{"zero_shot": {"accuracy": 0.5625}}')
    assert compare(each, tmp_path) == [
        {"experiment": "one", "what": "accuracy", "paper": 57.1, "here": 56.25},
        {"experiment": "one", "what": "lost", "paper": 1.0, "here": None},
    ]


# ---- the dry run ------------------------------------------------------------------------------


def test_every_config_runs_on_made_up_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One experiment of each config; the others are the same with another model."""
    first: dict[str, str] = {}
    for each in EXPERIMENTS:
        first.setdefault(each.config, each.name)
    only = (*first.values(), "zero_shot_esc50-at_gc")
    settings = Reproduce(
        paper="vip-ant", out=str(tmp_path / "out"), only=only, dry_run=True, configs=str(CONFIGS)
    )
    status = run(settings)
    shown = capsys.readouterr().out
    assert status == 0, shown
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["broken"] == [] and set(first.values()) < set(results["experiments"])


def test_a_broken_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "configs"
    shutil.copytree(CONFIGS, copy)
    with (copy / "prepare_audio.yaml").open("a") as file:
        file.write("audio_rat: native\n")
    argv = ["--dry-run", "--configs", str(copy), "--out", str(tmp_path / "out")]
    only = ["--only", "prepare_esc50", "prepare_audioset_eval"]
    assert main(["reproduce", "vip-ant", *argv, *only]) == 1
    shown = capsys.readouterr().out
    assert "2 experiments, broken: prepare_esc50; see" in shown
    assert re.search(r"prepare_esc50 .* FAILED: .*unknown key audio_rat; perhaps you meant", shown)
    assert re.search(r"prepare_audioset_eval .* ok\n", shown)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)  # an attempt goes to its folder; come back after the test
    (tmp_path / "logs").mkdir()
    return tmp_path


def tried(root: Path, **more: object) -> dict[str, object]:
    one = {"name": "x", "argv": ("--version",), "root": str(root), "needs": (), "makes": "x.json"}
    assert attempt(Attempt(**{**one, "keys": (), **more})) == 0
    return json.loads((root / "outcomes" / "x.json").read_text())


def test_what_a_broken_one_leaves_untried(here: Path) -> None:
    (here / "outcomes").mkdir()
    (here / "outcomes" / "y.json").write_text('{"ok": false}')
    said = {"ok": False, "why": "not tried: y failed", "needed": ["y"]}
    assert tried(here, needs=("y",)) == said


def test_an_experiment_without_its_file_or_its_number_is_broken(here: Path) -> None:
    assert tried(here)["why"] == "it ended well without x.json"
    (here / "x.json").write_text('{"a": {"b": 0.0}}')
    assert tried(here, keys=("a.b",)) == {"ok": True, "why": "", "needed": []}
    assert tried(here, keys=("a.b", "a.c", "d"))["why"] == "x.json has no a.c, d"


def test_the_one_line_of_a_mistake_is_the_reason(here: Path) -> None:
    # `work` sends what a job prints there; this test calls the attempt without it
    (here / "logs" / "x.txt").write_text("a warning\npivot: nowhere.csv does not exist\n")
    argv = ("pairs", "nowhere.csv", "--out", "x.csv")
    assert tried(here, argv=argv)["why"] == "nowhere.csv does not exist"


# ---- the README -------------------------------------------------------------------------------


def demo_rows() -> dict[str, list[str]]:
    """Rows of the README's table of the demo, by model: zero-shot, A->T, T->A as printed."""
    text = (ROOT / "README.md").read_text().partition("## What the demo shows")[2]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    found = {}
    for model, mark in DEMO.items():
        row = next((row for row in rows if mark in row[0]), None)
        found[model] = ["-"] * 5 if row is None else [cell.strip() for cell in row[1:]]
    return found


def tables() -> str:
    """What the README says of the experiments: a table for each group."""
    found = []
    for title, group in GROUPS.items():
        found += [f"## {title}", ""]
        if title.startswith("Retrieval"):
            found += [*_commands(group, "va"), "", *_retrieval(), ""]
        elif title.startswith("Zero-shot"):
            found += [*_commands(group, "va"), "", *_zero_shot(), ""]
        else:
            found += [*_commands(group), ""]
    return "\n".join(found)


def _commands(group: list[Experiment], model: str = "") -> list[str]:
    """One row an experiment; of evaluations one row a test, with the model's place named."""
    rows = ["| | in the paper | command | needs | expected | here |", "|---|---|---|---|---|---|"]
    for each in group:
        if model and not each.name.endswith(f"-{model}"):
            continue
        expected = ", ".join(map(str, each.expected)) or each.note
        if model:
            test = each.name.removesuffix(f"-{model}")
            name, where = f"{test}-MODEL", each.where.replace(", vip-AnT", "")
            expected = each.note or "see below"
        else:
            name, where = each.name, each.where
            expected += f"; {each.note}" if each.expected and each.note else ""
        needs = ", ".join([*each.needs, *each.data])
        here = f"not run: needs {', '.join(downloads(EXPERIMENTS, each))}"
        here += "; demo: last columns below" if model or each.name in DEMO else ""
        rows.append(f"| {name} | {where} | `{each.command}` | {needs} | {expected} | {here} |")
    if model:
        rows += [
            "",
            "The commands are VA's. For another MODEL of the table below put `runs/MODEL` after "
            "`evaluate`, and its own `--out`, as `--list` shows.",
        ]
    return rows


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


def readme(text: str) -> str:
    """The README with its tables made anew."""
    begin = BEGIN.search(text)
    assert begin
    end = text.index(END, begin.end())
    return f"{text[: begin.end()]}\n{tables()}\n{text[end:]}"


def test_readme_has_the_tables() -> None:
    text = (CONFIGS / "README.md").read_text()
    assert readme(text) == text, "run `python tests/test_reproduce.py` to rewrite the tables"
    assert all(path.name in text for path in CONFIGS.glob("*.yaml"))


if __name__ == "__main__":
    place = CONFIGS / "README.md"
    place.write_text(readme(place.read_text()))
