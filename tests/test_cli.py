"""The command line as a user meets it: instant, silent at import, one line for each mistake."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pivot import cli
from pivot.errors import NothingUsableError, RunError
from pivot.runs import Run
from pivot.settings import Demo, PretrainVa

HEAVY = ("torch", "lightning", "open_clip", "transformers", "timm", "matplotlib")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_import_is_light_and_silent() -> None:
    done = python("import pivot, sys, json; print(json.dumps(sorted(sys.modules)))")
    assert done.stderr == ""
    assert not set(HEAVY) & set(json.loads(done.stdout))


@pytest.mark.parametrize("name", ["", *cli.COMMANDS])
def test_help_is_light(name: str) -> None:
    """Every command has help, which imports nothing heavy and prints nothing on stderr."""
    code = f"""
import sys
from pivot.cli import main
try:
    status = main({[*name.split(), "--help"]})
except SystemExit as stop:
    status = stop.code
heavy = set({HEAVY}) & set(sys.modules)
sys.exit(f"imports {{heavy}}" if heavy else status)
"""
    done = python(code)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert (f"usage: pivot {name}" if name else "The journey") in done.stdout


def test_every_setting_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit):
            cli.main([*name.split(), "--help"])
        for entry in re.split(r"\n│ (?=--)", capsys.readouterr().out)[1:]:
            line = " ".join(re.sub("[│╭╮╰╯─]", " ", entry).split())
            bare = re.match(r"(--[\w.-]+)(?: [A-Z\[{]\S*)? \((?:default|required)", line)
            assert not bare or bare[1].endswith(".kind"), f"{name}: {line}"


def test_no_arguments_prints_the_journey(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["pretrain"]) == 2
    assert capsys.readouterr().err == (
        "pivot: no command 'pretrain'; perhaps you meant `pivot pretrain-va`\n"
    )


@pytest.mark.parametrize(
    ("error", "status"),
    [(RunError("in use"), 2), (NothingUsableError("all failed"), 1), (KeyboardInterrupt(), 130)],
)
def test_exit_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
) -> None:
    def fail(name: str, argv: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    assert cli.main(["demo"]) == status
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_used_run_folder_is_refused(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", "demo", Demo(seed=3))
    run.finish({"answer": 42}, {"clips": 1})
    written = json.loads((tmp_path / "run/results.json").read_text())
    assert (written["answer"], written["seed"], written["data"]) == (42, 3, {"clips": 1})
    assert "torch" in written["versions"]
    with pytest.raises(RunError, match="is in use"):
        Run.create(tmp_path / "run", "demo", Demo(seed=3))
    Run.create(tmp_path / "run", "demo", Demo(seed=3, resume=True), resume=True)


def test_resume_refuses_other_settings_and_other_commands(tmp_path: Path) -> None:
    settings = PretrainVa(shards="s", out="r")
    Run.create(tmp_path / "run", "pretrain-va", settings)
    audio = settings.audio.model_copy(update={"crop": "vip_ant"})
    changed = settings.model_copy(update={"audio": audio})
    with pytest.raises(RunError, match=r"with another --audio\.crop"):
        Run.create(tmp_path / "run", "pretrain-va", changed, resume=True)
    with pytest.raises(RunError, match="holds a run of `pivot pretrain-va`"):
        Run.create(tmp_path / "run", "demo", Demo(), resume=True)


def test_a_setting_that_is_newer_than_the_run_counts_as_its_default(tmp_path: Path) -> None:
    settings = PretrainVa(shards="s", out=str(tmp_path / "run"))
    Run.create(tmp_path / "run", "pretrain-va", settings)
    file = tmp_path / "run" / "settings.yaml"
    newer = ("keep_epochs", "  kind: fbank")
    old = [line for line in file.read_text().splitlines() if not line.startswith(newer)]
    file.write_text("\n".join(old))
    Run.create(tmp_path / "run", "pretrain-va", settings, resume=True)
    with pytest.raises(RunError, match="another --keep-epochs"):
        changed = settings.model_copy(update={"keep_epochs": 2})
        Run.create(tmp_path / "run", "pretrain-va", changed, resume=True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").touch()
    with pytest.raises(RunError, match="is not a run folder"):
        Run.create(tmp_path / "other", "demo", Demo(), resume=True)
