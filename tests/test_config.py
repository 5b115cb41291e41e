"""Settings from YAML and flags: what is read, and how each mistake reads aloud."""

import io
import sys
from pathlib import Path

import pytest

from pivot import config
from pivot.errors import SettingsError
from pivot.settings import LarsSettings, MuonSettings, PretrainVa, Search, TrainAt


def load(*argv: str) -> PretrainVa:
    return config.load(PretrainVa, list(argv), "pivot pretrain-va")


def complaint(*argv: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(*argv)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.fixture
def write(tmp_path: Path):
    def write(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def test_defaults_and_flags() -> None:
    settings = load("shards", "--out", "run", "--encoder.stride", "8", "12", "--resume")
    assert (settings.shards, settings.out, settings.encoder.stride) == ("shards", "run", (8, 12))
    assert settings.resume and isinstance(settings.optim, LarsSettings)


def test_kind_chosen_by_flag_keeps_its_own_defaults() -> None:
    settings = load("s", "--out", "r", "--optim.kind", "muon", "--optim.lr", "0.05")
    assert settings.optim == MuonSettings(lr=0.05)
    assert load("s", "--out", "r", "--optim.kind=adamw").optim.kind == "adamw"


def test_file_then_flags(write) -> None:
    write("base.yaml", "batch_size: 8\noptim:\n  kind: lars\n  eta: 0.5\nmask:\n  time: 7\n")
    file = write("a.yaml", "base: base.yaml\nshards: s\nout: r\noptim:\n  lr_bias: 0.1\n")
    settings = load("--config", file, "--batch-size", "9")
    assert (settings.batch_size, settings.mask.time) == (9, 7)
    assert settings.optim == LarsSettings(eta=0.5, lr_bias=0.1)


def test_another_kind_replaces_the_part_below(write) -> None:
    write("base.yaml", "optim:\n  kind: lars\n  eta: 0.5\n")
    file = write("a.yaml", "base: base.yaml\nshards: s\nout: r\noptim:\n  kind: muon\n")
    assert load("--config", file).optim == MuonSettings()


def test_written_settings_read_back(write) -> None:
    from pivot.runs import to_yaml

    settings = load("s", "--out", "r", "--optim.kind", "muon", "--max-steps", "5")
    assert load("--config", write("again.yaml", to_yaml(settings))) == settings


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ((), "missing: SHARDS, --out (see pivot pretrain-va --help)"),
        (("s", "--out", "r", "--resum"), "perhaps you meant --resume"),
        (("s", "--out", "r", "--optim.kind", "muonn"), "take lars, adam, adamw, muon"),
        (("s", "--out", "r", "--batch-size", "1"), "--batch-size: Input should be greater than 1"),
        (("s", "--out", "r", "--batch-size", "many"), "--batch-size"),
        (("s", "--out", "r", "--optim.eta", "-1"), "--optim.eta: Input should be greater than 0"),
        (("s", "--out", "r", "--audio.sample-rate", "0"), "sample-rate: Input should be greater"),
        (("s", "--out", "r", "--max-steps", "0"), "--max-steps must be at least 1, not 0"),
        (("s", "--out", "r", "--audio.pad", "zero"), "--audio.pad"),
        (("s", "t", "--out", "r"), "Unrecognized options: t"),
        (("--config",), "--config needs a file"),
        (("--config", "nowhere.yaml"), "nowhere.yaml: No such file"),
    ],
)
def test_flag_mistakes_in_one_line(argv: tuple[str, ...], said: str) -> None:
    assert said in complaint(*argv)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("batch_sise: 3", "unknown key batch_sise; perhaps you meant batch_size"),
        ("optim:\n  kind: muon\n  lrr: 1", "unknown key optim.lrr; perhaps you meant optim.lr"),
        ("audio:\n  num_frame: 5", "perhaps you meant audio.num_frames"),
        ("xyzzy: 3", "valid keys: "),
        ("batch_size: many", "batch_size: Input should be a valid integer"),
        ("encoder:\n  stride: [0, 4]", "encoder.stride.0: Input should be greater than 0, not 0"),
        ("- a\n- b", "must hold `key: value` lines, not a list"),
        ("a: [1", "is not YAML"),
        ("base: config.yaml", "goes in a circle"),
        ("base: gone.yaml", "gone.yaml: No such file"),
    ],
)
def test_file_mistakes_in_one_line(write, text: str, said: str) -> None:
    line = complaint("--config", write("config.yaml", text), "s", "--out", "r")
    assert said in line
    assert "yaml" in line


def test_short_flag_of_search() -> None:
    argv = ["run", "a dog barks", "folder", "-k", "3"]
    assert config.load(Search, argv, "pivot search").k == 3


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("encoder.kind passt encoder.fusion aff_2d", "goes with encoder.kind cnn14 or htsat; name"),
        ("audio.windows 3", "audio.windows goes with audio.kind htk_log or htk_db or slaney_db;"),
        ("encoder.kind htsat audio.windows 2", "pivot: fill repeatpad goes with one window, not 2"),
        ("encoder.kind passt audio.sample-rate 16000", "passt hears 32000 Hz, not"),
        ("encoder.kind ast audio.kind htk_db", "ast hears audio.kind fbank, not htk_db"),
        ("encoder.kind htsat encoder.fusionn x", "perhaps you meant --encoder.fusion"),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_mistakes_of_parts_that_go_together(
    flags: str, said: str, encoding: str, monkeypatch
) -> None:
    """One line that names the parts, also where the terminal draws no boxes."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    words = [f"--{word}" if "." in word else word for word in flags.split()]
    with pytest.raises(SettingsError) as error:
        config.load(TrainAt, ["s", "--pairs", "p", "--out", "r", *words], "pivot train-at")
    assert said in f"pivot: {error.value}"
    assert "{" not in str(error.value)


def test_a_file_whose_parts_do_not_go_together(write) -> None:
    path = write("config.yaml", "encoder: {kind: htsat}\naudio: {windows: 2}")
    line = complaint("--config", path, "s", "--out", "r")
    assert line.endswith("fill repeatpad goes with one window, not 2; take fill pad")


def test_help_names_every_kind(capsys) -> None:
    with pytest.raises(SystemExit):
        config.load(TrainAt, ["--help"], "pivot train-at")
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "vit, ast, passt, atst, mobilenet, cnn14, htsat" in said
    assert "fbank, htk_log, htk_db, slaney_db" in said
    assert "lars, adam, adamw, muon" in said


def test_what_is_named_beside_a_model_is_known(write) -> None:
    path = write("config.yaml", "audio: {num_frames: 1000}")
    argv = ["s", "--pairs", "p", "--out", "r", "--config", path, "--encoder.kind", "htsat"]
    argv.append("--encoder.no-stripes")
    with_model = config.load(TrainAt, [*argv, "--model", "m"], "pivot train-at")
    assert with_model.named("audio") == {"num_frames"}
    assert with_model.named("encoder") == {"kind", "stripes"}
    assert config.load(TrainAt, argv, "pivot train-at").named("audio") == set()
    assert "_named" not in with_model.model_dump()
    from pivot.runs import to_yaml

    again = write("settings.yaml", to_yaml(with_model))
    known = config.load(TrainAt, ["--config", again], "pivot train-at")
    assert known.named("audio") == known.named("encoder") == set()
    assert known.model_dump() == with_model.model_dump()
