"""The papers' experiments: their tables, configs and READMEs, the dry run, the real run.

`python -m tests.test_reproduce` rewrites the tables in the READMEs of configs/.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

from pivot import cli, config
from pivot.cli import main
from pivot.errors import DataError, SettingsError
from pivot.reproduce import curation, dry_run, salsa
from pivot.reproduce.command import compare, lines, run
from pivot.reproduce.dry_run import Attempt, attempt
from pivot.reproduce.made_up import SETS
from pivot.reproduce.numbers import RETRIEVAL, ZERO_SHOT
from pivot.reproduce.papers import PAPERS
from pivot.reproduce.scores import ROWS
from pivot.reproduce.table import Expected, Experiment, Paper, choose, downloads, shown
from pivot.reproduce.tiny import CONFIG, tiny
from pivot.settings import Reproduce
from pivot.world.jobs import Job, work
from tests.readmes import place, readme, rewrite

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"
Tell = Callable[[str, float, int], None]
EACH = pytest.mark.parametrize("name", PAPERS)
VIP_ANT = PAPERS["vip-ant"].experiments


def named(name: str, paper: str = "vip-ant") -> Experiment:
    return next(each for each in PAPERS[paper].experiments if each.name == name)


def files_of(paper: Paper) -> dict[str, Path]:
    return {path.name: path for path in (ROOT / paper.configs).glob("*.yaml")}


# ---- the tables -------------------------------------------------------------------------------


@EACH
def test_every_config_is_in_the_table_and_opens_with_its_command(name: str) -> None:
    """Or is the base of one that is, and says so."""
    paper, commands, bases = PAPERS[name], dict[str, list[str]](), set[str]()
    for each in paper.experiments:
        commands.setdefault(Path(each.config).name, []).append(f"# {each.command}")
        assert each.config.startswith(f"{paper.configs}/")
    files = files_of(paper)
    for path in files.values():
        bases.add(yaml.safe_load(path.read_text()).get("base"))
    assert set(commands) <= set(files) <= set(commands) | bases
    for file, path in files.items():
        text = path.read_text().splitlines()
        assert text[0] in commands.get(file, []) or text[0].startswith("# Base of "), file
        assert any(line.startswith("# Expected") for line in text[1:5]), file
        assert max(map(len, text)) <= 100, file


@EACH
def test_names_needs_and_downloads_fit(name: str) -> None:
    paper, seen = PAPERS[name], set[str]()
    for each in paper.experiments:
        assert each.name not in seen and set(each.needs) <= seen
        assert set(each.data) <= set(paper.data)
        seen.add(each.name)
    assert len({each.makes for each in paper.experiments}) == len(seen)
    assert all(downloads(paper.experiments, each) for each in paper.experiments)
    for one in paper.data.values():
        folder, _ = SETS.get(one.name, (dry_run.FILES.get(one.name), None))
        assert one.path == f"downloads/{folder}", "the dry run makes it elsewhere"


@EACH
def test_every_command_can_be_read(name: str) -> None:
    """Each config holds all that its command needs, and each set of flags is one of its own."""
    known, shapes = set[str](), set[tuple[str, ...]]()
    for each in PAPERS[name].experiments:
        command, *words = each.argv(CONFIGS)
        kind = cli._find(cli.COMMANDS[command].settings)
        settings = kind.model_validate(config.read_yaml(ROOT / each.config))
        out = words[words.index("--out") + 1] if "--out" in words else settings.out
        assert each.makes.startswith(out), each.name
        words += tiny(each)
        shape = (command, *(word for word in words if word.startswith("--")))
        if shape not in shapes:  # reading flags takes a tenth of a second
            config.load(kind, words, f"pivot {command}")
        shapes.add(shape)
        known.add(str(Path(each.config).relative_to("configs")))
    folder = Path(PAPERS[name].configs).name
    assert {file for file in CONFIG if file.startswith(f"{folder}/")} <= known


def test_what_an_experiment_needs_comes_along() -> None:
    names = [each.name for each in choose(VIP_ANT, ["zero_shot_esc50-at_fc"])]
    assert names[-1] == "zero_shot_esc50-at_fc" and len(names) == 10
    assert names.index("va") < names.index("captions_fc") < names.index("pairs_fc")
    assert len(choose(VIP_ANT, ["*"])) == len(choose(VIP_ANT, [])) == len(VIP_ANT)
    assert downloads(VIP_ANT, named("at_fc")) == ["AudioSet", "AudioCaps", "caption pools"]
    taught = choose(PAPERS["salsa"].experiments, ["mn_stage2_m3-audiocaps"])
    assert sum(each.name.startswith(("sounds-", "texts-")) for each in taught) == 6


@pytest.mark.parametrize(
    ("paper", "bases"),
    [
        ("curation", {"encoders.yaml"}),
        ("salsa", {"encoders.yaml", "passt.yaml", "atst.yaml", "mn.yaml"}),
    ],
)
def test_encoders_are_settled_in_base_files_alone(paper: str, bases: set[str]) -> None:
    parts = {"clip", "audio", "encoder", "project", "text"}
    files = files_of(PAPERS[paper])
    own = {name for name, path in files.items() if parts & set(yaml.safe_load(path.read_text()))}
    assert own == bases


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


def test_numbers_agree_with_what_the_papers_conclude() -> None:
    best = {row: numbers for row, numbers in curation.TABLE_2.items() if row != "ads_sl"}
    for test in range(3):
        assert curation.TABLE_2["ads_sl"][test][0] > max(row[test][0] for row in best.values())
    for encoder in salsa.ENCODERS:
        one, three, own = (
            salsa.TABLE_1[f"{encoder}_{stage}"] for stage in ("stage1", "stage2_m3", "stage2_m1")
        )
        assert three[0][0] > own[0][0] > one[0][0] and three[1][0] > max(own[1][0], one[1][0])
    assert sorted(salsa.TABLE_2.values()) == list(salsa.TABLE_2.values())
    assert [shown(value) for value in (57.0, 57.1, 28.93)] == ["57.0", "57.1", "28.93"]


def test_list_says_what_each_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "vip-ant", "--list", "--only", "zero_shot_esc50-va"]) == 0
    shown = capsys.readouterr().out
    assert "accuracy 57.1 %, accuracy without prompt 49.9 %" in shown
    assert "pivot evaluate --config configs/vip_ant/zero_shot_esc50.yaml" in shown
    for paper in PAPERS.values():
        rows = [line for line in lines(paper, paper.experiments) if line[0] != " "]
        assert len(rows) == len(paper.experiments)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"only": ("zero_shot",)}, "--only zero_shot: no experiment has this name"),
        ({"configs": "nowhere"}, "--configs nowhere has no folder vip_ant"),
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
    from pivot.reproduce.made_sets import clotho

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


# One experiment of each kind; with what they need these are most configs. The others differ in a
# setting that test_every_command_can_be_read has read.
KINDS = {
    "vip-ant": (
        "retrieval_audiocaps-at_rc", "retrieval_clotho-va", "zero_shot_audioset-va_rand",
        "zero_shot_us8k_compat-va", "at_fc", "at_gl", "at_rc_fixed", "at_gc_scale", "vat",
        "few_shot_esc50", "classifier_esc50_clip", "classifier_us8k_compat",
        "classifier_audioset_balanced", "va_knn", "va_released",
    ),
    "curation": (
        "overlap_us8k", "sl", "du_sl", "zero_shot_tut17-ads_sl-tut17", "zero_shot_esc50-teacher_10",
    ),
    "laion-clap": (
        "retrieval_audiocaps-k2c_fusion", "retrieval_clotho-pann_clip", "zero_shot_us8k-template",
        "zero_shot_esc50-released_fused", "import_unfused", "htsat_bert", "finetune_fsd50k",
        "finetune_vggsound", "probe_esc50",
    ),
    "salsa": (
        "overlap", "retrieval_clotho-mn_stage2_m3-clotho", "atst_stage2_m1-audiocaps",
        "passt_joint_without",
    ),
}  # fmt: skip


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Jobs one after the other in this process: each of their own takes seconds to begin."""
    import torch

    def run_jobs(
        jobs: Sequence[Job], out: Path, workers: int, tell: Tell, watch: object
    ) -> dict[str, float]:
        seconds = {}
        for job in jobs:
            seconds[job.name] = work(job, out / "logs" / f"{job.name}.txt")
            tell(job.name, seconds[job.name], 0)
        return seconds

    monkeypatch.setattr(dry_run, "run_jobs", run_jobs)
    threads, folder = torch.get_num_threads(), Path.cwd()
    yield
    torch.set_num_threads(threads)
    monkeypatch.chdir(folder)


@EACH
def test_experiments_run_on_made_up_data(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], one_process: None
) -> None:
    out = tmp_path / "out"
    settings = Reproduce(
        paper=name, out=str(out), only=KINDS[name], dry_run=True, configs=str(CONFIGS)
    )
    status = run(settings)
    shown = capsys.readouterr().out
    assert status == 0, shown
    results = json.loads((out / "results.json").read_text())
    assert results["broken"] == [] and set(KINDS[name]) < set(results["experiments"])


def test_a_broken_config_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Through the command line and in processes of its own; what needs it is not tried."""
    copy = tmp_path / "configs"
    shutil.copytree(CONFIGS, copy)
    with (copy / "curation" / "prepare_test.yaml").open("a") as file:
        file.write("audio_rat: native\n")
    argv = ["--dry-run", "--configs", str(copy), "--out", str(tmp_path / "out"), "--workers", "1"]
    only = ["--only", "overlap_esc50"]
    assert main(["reproduce", "curation", *argv, *only]) == 1
    shown = capsys.readouterr().out
    assert "3 experiments, broken: prepare_esc50 (and 1 that need them); see" in shown
    assert re.search(r"prepare_esc50 .* FAILED: .*unknown key audio_rat; perhaps you meant", shown)
    assert re.search(r"prepare_clap .* ok\n", shown)
    assert re.search(r"overlap_esc50 .* FAILED: not tried: prepare_esc50 failed\n", shown)


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


def test_a_command_that_finds_some_did_its_work(here: Path) -> None:
    for name in ("a", "b"):
        (here / f"{name}.txt").write_text("1234\n")
    argv = ("check-overlap", "freesound:a.txt", "freesound:b.txt", "--out", "x.csv")
    assert tried(here, argv=argv, makes="x.csv")["ok"]


# ---- the READMEs ------------------------------------------------------------------------------


@EACH
def test_readme_has_the_tables(name: str) -> None:
    text = place(name).read_text()
    assert readme(name, text) == text, "run `python -m tests.test_reproduce` to rewrite the tables"
    assert all(file in text for file in files_of(PAPERS[name]))


if __name__ == "__main__":
    rewrite()
