"""The whole journey: the demo's own commands on small real mp4 files, and on real videos."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pivot import cli, config
from pivot.errors import RunError, UserError
from pivot.settings import Demo, Settings
from pivot.world.jobs import Job, run_jobs
from pivot.world.sizes import MODELS
from pivot.world.stages import jobs
from tests.conftest import ROOT

TUNED = ("at_rc", "at_vc", "at_fc", "at_ac", "at_gc", "vat_ac")


def pivot(*argv: str, timeout: int = 600) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pivot", *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one `pivot demo --fast`."""
    out = tmp_path_factory.mktemp("journey") / "demo"
    done = pivot("demo", "--fast", "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "report.html" in done.stdout
    return out


@pytest.fixture(scope="module")
def results(demo: Path) -> dict:
    return json.loads((demo / "results.json").read_text())


def test_results_hold_what_is_promised(results: dict) -> None:
    assert results["clips"]["failed"] == 0
    assert results["clips"]["made"] == results["clips"]["prepared"] > 0
    for model in ("va_random_init", "va", *TUNED):
        numbers = [results["zero_shot"][model]]
        for way in ("audio_to_text", "text_to_audio"):
            numbers += [results["retrieval"][model][way][k] for k in ("r1", "r10")]
        assert all(0 <= n <= 1 for n in numbers), model
    for key in ("chance", "clip_image_zero_shot", "pivotability"):
        assert 0 < results[key] < 1, key
    assert {"pairs", "zero_shot"} <= set(results["scaling"][0])
    assert results["fit"]["slope"]
    assert results["seed"] == results["settings"]["seed"]
    assert results["seconds"]["total"] > 0
    assert [row["layers"] for row in results["last_layers"]] == [0, 1, 2, 3]
    written = results["written"]
    assert written["captions"] == written["rows"] - sum(written["dropped"].values()) > 0
    assert results["data"]["single"]["labels"] and results["versions"]["torch"]


def test_the_pivot_works_even_in_the_short_demo(results: dict) -> None:
    """Wide margins: the short demo has few clips, and CPUs round differently."""
    chance, found = results["chance"], results["zero_shot"]
    assert results["clip_image_zero_shot"] > 8 * chance
    assert found["va"] > 3 * chance
    assert found["untrained"] < 3 * chance
    assert found["at_gc"] > found["at_rc"]
    assert found["at_gc"] > 3 * chance


def test_report_stands_alone(demo: Path) -> None:
    page = (demo / "report.html").read_text()
    assert not re.search(r"(?:src|href)=[\"']?https?:", page)
    assert page.count("<audio") >= 3
    assert "The scaling curve" in page


def test_every_model_can_be_searched(demo: Path) -> None:
    sounds = str(demo / "world" / "test_single")
    done = pivot("search", str(demo / "runs" / "at_gc"), "a bell rings", sounds, "-k", "3")
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"test_single-\d+", done.stdout)) == 3


def test_used_folder_is_refused_and_resume_keeps_the_numbers(demo: Path, results: dict) -> None:
    refused = pivot("demo", "--fast", "--out", str(demo))
    assert refused.returncode == 2
    assert len(refused.stderr.splitlines()) == 1 and "--resume" in refused.stderr
    again = pivot("demo", "--fast", "--out", str(demo), "--resume")
    assert again.returncode == 0, again.stderr
    new = json.loads((demo / "results.json").read_text())
    assert new["zero_shot"] == results["zero_shot"]


def test_stages_are_the_commands_of_the_table(tmp_path: Path) -> None:
    """All but four stages (world, writer, untrained, report) are functions of the command line."""
    known = {command.function for command in cli.COMMANDS.values()}
    listed = jobs(Demo(out=str(tmp_path)), workers=2)
    names = [job.name for job in listed]
    assert [job.name for job in listed if job.function not in known] == [
        "world",
        "writer",
        "untrained",
    ]
    assert set(MODELS) <= set(names)
    assert all(need in names for job in listed for need in job.needs)


@pytest.mark.parametrize(("name", "job"), [("pretrain_va", "va"), ("train_at", "at_ac")])
def test_tiny_configs_are_what_the_demo_does(name: str, job: str) -> None:
    command = cli.COMMANDS[name.replace("_", "-")]
    file = str(ROOT / "configs" / "tiny" / f"{name}.yaml")
    told = config.load(cli._find(command.settings), ["--config", file], command.name)
    done = {job.name: job.settings for job in jobs(Demo(out="demo"), workers=2)}[job]
    free = {"out": "", "seed": 0, "resume": True}
    assert told.model_dump() | free == done.model_dump() | {"out": "", "seed": 0}


# ---- jobs -------------------------------------------------------------------------------------


class Note(Settings):
    """Settings of the jobs below."""

    path: str
    text: str = "x"


def append(settings: Note) -> int:
    print("said", settings.text)
    with Path(settings.path).open("a") as file:
        file.write(settings.text)
    return 0


def fail(settings: Note) -> int:
    raise UserError(f"{settings.path} is broken; mend it")


def die(settings: Note) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def run_all(listed: list[Job], out: Path) -> dict[str, float]:
    return run_jobs(listed, out, 2, lambda *_: None, lambda _: None)


def test_jobs_wait_log_and_are_done_once(tmp_path: Path) -> None:
    here = f"{__name__}:append"
    file = tmp_path / "file"
    first = Job("first", here, Note(path=str(file), text="a"))
    second = Job("second", here, Note(path=str(file), text="b"), ("first",))
    assert set(run_all([second, first], tmp_path)) == {"first", "second"}
    assert file.read_text() == "ab"
    assert (tmp_path / "logs/first.txt").read_text() == "said a\n"
    changed = Job("second", here, Note(path=str(file), text="c"), ("first",))
    run_all([first, changed], tmp_path)
    assert file.read_text() == "abc"


def test_failed_job_is_named(tmp_path: Path) -> None:
    job = Job("mine", f"{__name__}:fail", Note(path="this"))
    with pytest.raises(UserError, match="mine: this is broken; mend it"):
        run_all([job], tmp_path)
    assert not (tmp_path / "done").exists()


def test_killed_job_is_named(tmp_path: Path) -> None:
    job = Job("heavy", f"{__name__}:die", Note(path="this"))
    with pytest.raises(RunError, match="heavy"):
        run_all([job], tmp_path)


# ---- real videos ------------------------------------------------------------------------------


def test_real_videos_from_files_to_search(realdata: Path, tmp_path: Path) -> None:
    """The user's own commands on real files; three steps of training need not teach much."""
    shards, run = str(tmp_path / "shards"), str(tmp_path / "va")
    done = pivot("prepare-frames", str(realdata / "video"), "--out", shards)
    assert done.returncode == 0, done.stderr
    assert re.match(r"prepared 9 of 9 clips", done.stdout.splitlines()[-1])
    assert re.search(r"no_audio +1 ", done.stdout)
    done = pivot("measure-fbank", shards)
    assert done.returncode == 0
    assert "left out: 1 of 9 clips" in done.stdout + done.stderr
    train = ("--clip.model", "tiny-world", "--max-steps", "3", "--batch-size", "4")
    done = pivot("pretrain-va", shards, "--out", run, *train, "--encoder.stride", "16", "24")
    assert done.returncode == 0, done.stderr
    sounds = str(realdata / "audio" / "librosa_examples")
    done = pivot("search", run, "the sound of a bird", sounds, "-k", "3")
    assert done.returncode == 0, done.stderr
    assert "humpback" in done.stdout or "bird" in done.stdout or "pibble" in done.stdout
