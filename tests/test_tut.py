"""TUT Acoustic Scenes 2017 as it is published, its prompts, and the windows it is measured on."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from pivot.audio.frontend import FrontEnd, Norm
from pivot.embeddings import embed
from pivot.embeddings.sources import ShardSounds
from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.errors import DataError, SettingsError
from pivot.evaluation import evaluate
from pivot.evaluation.compat import rules_of
from pivot.evaluation.windows import embed_measured, generator, tile, windows
from pivot.model import Pivot, load
from pivot.settings import Evaluate
from tests import toy
from video_prep.errors import UserError
from video_prep.index import AUDIO, find_clips
from video_prep.prepare import run_audio
from video_prep.settings import PrepareAudio
from video_prep.shards import ShardFolder

DEV = "TUT-acoustic-scenes-2017-development"
EVA = "TUT-acoustic-scenes-2017-evaluation"
LABELS = ("beach", "cafe/restaurant", "city_center", "tram")
RATE = 8000
PROMPT = "this is a sound of"


def scene(path: Path, number: int, seconds: float = 0.8) -> None:
    """A stereo sound whose second half is another tone than its first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kinds, half = list(toy.KINDS), seconds / 2
    wave = np.concatenate([toy.tone(kinds[(number + k) % 4], number, half) for k in range(2)])
    soundfile.write(path, np.stack([wave, wave // 2], axis=1), RATE, subtype="PCM_16")


def tut(root: Path, *, seconds: float = 0.8, third: bool = True) -> Path:
    """Both published folders with 8 and 4 clips; clip n of the development is tested in fold n % 4.

    The evaluation set is labelled by meta.txt, or without `third` by evaluation_setup alone.
    """
    rows = []
    for n in range(8):
        name = f"audio/b{n:03d}_{10 * n}_{10 * n + 10}.wav"
        scene(root / DEV / name, n, seconds)
        rows.append((name, LABELS[n % 4], f"b{n:03d}"))
    write(root / DEV / "meta.txt", rows)
    for fold in range(1, 5):
        own = [row for n, row in enumerate(rows) if n % 4 + 1 == fold]
        others = [row for row in rows if row not in own]
        setup = root / DEV / "evaluation_setup"
        write(setup / f"fold{fold}_train.txt", [row[:2] for row in others])
        write(setup / f"fold{fold}_test.txt", [row[:1] for row in own])
        write(setup / f"fold{fold}_evaluate.txt", [row[:2] for row in own])
    more = [(f"audio/{n}.wav", LABELS[n], f"c{n}")[: 3 if third else 2] for n in range(4)]
    for row in more:
        scene(root / EVA / row[0], 3, seconds)
    write(root / EVA / ("meta.txt" if third else "evaluation_setup/evaluate.txt"), more)
    return root


def write(path: Path, rows: Sequence[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows))


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


# ---- the published layout --------------------------------------------------------------------


def test_the_development_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tut(tmp_path)
    found = find_clips(str(root / DEV), AUDIO)
    assert [clip.id for clip in found.clips[:2]] == ["b000_0_10", "b001_10_20"]
    assert [clip.labels for clip in found.clips[:4]] == [(label,) for label in LABELS]
    assert [clip.fold for clip in found.clips] == [1, 2, 3, 4, 1, 2, 3, 4]
    assert found.clips[0].source == "audio/b000_0_10.wav"
    assert {(clip.start, clip.end, clip.fault) for clip in found.clips} == {(None, None, None)}
    assert found.dataset is not None
    facts = {"name": "TUT Acoustic Scenes 2017", "split": "development", "official": 4680}
    assert found.dataset.facts() == facts
    said = capsys.readouterr().err
    assert said == (
        f"{root}/{DEV}/meta.txt lists 8 clips; TUT Acoustic Scenes 2017 development has 4,680\n"
    )


@pytest.mark.parametrize("third", [True, False])
def test_the_evaluation_folder_has_no_folds(tmp_path: Path, third: bool) -> None:
    """Labels from meta.txt, or where it is not there from evaluation_setup/evaluate.txt."""
    root = tut(tmp_path, third=third)
    found = find_clips(str(root / EVA), AUDIO)
    assert [clip.id for clip in found.clips] == ["0", "1", "2", "3"]
    assert found.clips[1].labels == ("cafe/restaurant",)
    assert {clip.fold for clip in found.clips} == {None}
    assert found.dataset is not None
    assert (found.dataset.split, found.dataset.official) == ("evaluation", 1620)


def test_both_folders_are_one_data_set(tmp_path: Path) -> None:
    """6,300 clips, as the curation paper measures on."""
    root = tut(tmp_path / "evaluation-sets")
    found = find_clips(str(root), AUDIO)
    assert [clip.fold for clip in found.clips] == [1, 2, 3, 4, 1, 2, 3, 4, *[None] * 4]
    assert found.clips[0].source == f"{DEV}/audio/b000_0_10.wav"
    assert found.clips[-1].source == f"{EVA}/audio/3.wav"
    assert found.dataset is not None
    assert (found.dataset.split, found.dataset.official) == (None, 6300)
    # one of the two alone in its parent is that one
    (root / EVA).rename(tmp_path / "elsewhere")
    alone = find_clips(str(root), AUDIO)
    assert len(alone.clips) == 8 and alone.dataset is not None
    assert alone.dataset.split == "development"


def test_shards_of_it_keep_labels_and_folds(tmp_path: Path) -> None:
    root = tut(tmp_path, seconds=0.4)
    (root / DEV / "audio/b003_30_40.wav").unlink()
    settings = PrepareAudio(source=str(root), out=str(tmp_path / "shards"), workers=1)
    assert run_audio(settings) == 0
    shards = ShardFolder(tmp_path / "shards")
    assert len(shards) == 11 and "b003_30_40" not in shards.ids
    facts = dict(zip(shards.ids, shards.all_facts(), strict=True))
    assert facts["b001_10_20"]["labels"] == ["cafe/restaurant"]
    assert facts["b001_10_20"]["fold"] == 2 and "fold" not in facts["3"]
    assert shards.dataset == {
        "name": "TUT Acoustic Scenes 2017",
        "split": None,
        "official": 6300,
        "listed": 12,
        "present": 11,
    }


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        ("meta.txt", "tram", "Tram", "none of TUT Acoustic Scenes 2017's 15"),
        ("meta.txt", "wav\tcity_center", "wav\tkitchen", r"meta.txt line 3: .* label 'kitchen'"),
        ("meta.txt", "\tb004", "\tb004\tx", "line 5: .* is not a file and its scene"),
        ("meta.txt", "b004_40_50", "b000_0_10", "fold1_evaluate.txt line 2: audio/b004_40_50.wav"),
        ("evaluation_setup/fold2_evaluate.txt", "cafe/restaurant", "tram", "is 'tram', but .*meta"),
        ("evaluation_setup/fold2_evaluate.txt", "b001_10_20", "b000_0_10", "in fold 2 and in fold"),
    ],
)
def test_wrong_tables(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    root = tut(tmp_path)
    change(root / DEV / file, old, new)
    with pytest.raises(UserError, match=message) as raised:
        find_clips(str(root / DEV), AUDIO)
    assert "\n" not in str(raised.value)


def test_clips_in_no_test_list_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tut(tmp_path)
    for name in ("test", "evaluate"):
        (root / DEV / f"evaluation_setup/fold4_{name}.txt").unlink()
    found = find_clips(str(root / DEV), AUDIO)
    assert [clip.fold for clip in found.clips] == [1, 2, 3, None, 1, 2, 3, None]
    assert "2 of 8 clips of" in capsys.readouterr().err


def test_other_folders_are_not_taken_for_it(tmp_path: Path) -> None:
    """The set of 2016 has 30 s and other folds; a note called meta.txt is a note."""
    scene(tmp_path / "a/audio/b020_90_120.wav", 1, 0.4)
    write(tmp_path / "a/meta.txt", [("audio/b020_90_120.wav", "beach")])
    (tmp_path / "b").mkdir()
    scene(tmp_path / "b/x.wav", 1, 0.4)
    (tmp_path / "b/meta.txt").write_bytes(os.urandom(300) + b"\0\xff")
    for name, clip in (("a", "audio/b020_90_120"), ("b", "x")):
        found = find_clips(str(tmp_path / name), AUDIO)
        assert found.dataset is None and [own.id for own in found.clips] == [clip]


# ---- windows ---------------------------------------------------------------------------------


def test_windows_by_hand() -> None:
    wave = np.arange(20)[None]

    def starts(rule: Any, n: int, rng: Any = None) -> list[int]:
        return [int(own[0, 0]) for own in windows(wave, n, rule, rng)]

    assert starts("mean", 10) == [0, 10] and starts("mean", 20) == [0]
    assert starts("mean", 8) == [0, 6, 12]  # whole windows, from the first sample to the last
    assert starts("middle", 10) == [5] and starts("middle", 30) == [0]
    assert all(own.shape == (1, 8) for own in windows(wave, 8, "mean"))
    assert windows(wave, 30, "mean")[0].shape == (1, 20)
    drawn = {starts("random", 10, generator(0, f"clip{n}"))[0] for n in range(300)}
    assert drawn == set(range(11))  # the last start, too
    assert starts("random", 10, generator(5, "x")) == starts("random", 10, generator(5, "x"))
    with pytest.raises(ValueError, match="generator"):
        windows(wave, 10, "random")


def test_short_sounds_are_repeated_and_cut() -> None:
    wave = np.arange(6).reshape(2, 3)
    assert tile(wave, 7).tolist() == [[0, 1, 2, 0, 1, 2, 0], [3, 4, 5, 3, 4, 5, 3]]
    assert windows(wave, 7, "mean", short="tile")[0].tolist() == tile(wave, 7).tolist()
    assert windows(wave, 3, "mean", short="tile")[0].tolist() == wave.tolist()
    assert windows(wave, 7, "mean", short="pad")[0].tolist() == wave.tolist()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of both folders at 8 kHz: 12 clips of 0.8 s; the toy encoder sees 0.335 s."""
    folder = tmp_path_factory.mktemp("tut")
    out = folder / "shards"
    settings = PrepareAudio(source=str(tut(folder)), out=str(out), workers=1, audio_rate=RATE)
    assert run_audio(settings) == 0
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    clip = load_clip(toy.toy_clip(folder / "clip"))
    audio = build_audio(clip, toy.ENCODER.model_copy(update={"init": "random"}), toy.AUDIO, 3)
    norm = Norm(mean=-5.0, std=4.0, source="toy")
    Pivot(clip, audio, FrontEnd(toy.AUDIO, norm)).save(folder / "model")
    return folder / "model"


def settings_of(model: Path, shards: Path, out: Path, **values: Any) -> Evaluate:
    job = {"model": str(model), "shards": str(shards), "out": str(out), "device": "cpu"}
    return Evaluate(**(job | {"figures": False, "prompt": PROMPT} | values))


def measured(model: Path, shards: Path, out: Path, **values: Any) -> dict[str, Any]:
    assert evaluate.run(settings_of(model, shards, out, **values)) == 0
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def test_crops_against_sounds_that_were_cut_by_hand(model: Path, shards: Path) -> None:
    own, folder = load(model), ShardFolder(shards)
    sounds = list(ShardSounds(folder).read(range(len(folder))))
    at = 2400  # 0.3 s at 8 kHz
    waves = [wave for wave, _ in sounds]  # type: ignore[misc]

    def unit(pieces: list[np.ndarray]) -> torch.Tensor:
        return own.encode_audio([(piece, RATE) for piece in pieces])

    some = {"crop_seconds": 0.3, "batch_size": 5}
    middle = embed_measured(settings_of(model, shards, Path("x"), **some), own, folder)
    assert np.allclose(middle, unit([wave[:, 2000:4400] for wave in waves]), atol=1e-6)
    mean = embed_measured(settings_of(model, shards, Path("x"), crop="mean", **some), own, folder)
    parts = [unit([wave[:, start : start + at] for wave in waves]) for start in (0, 2000, 4000)]
    expected = torch.nn.functional.normalize(torch.stack(parts).mean(0), dim=-1)
    assert np.allclose(mean, expected, atol=1e-6)
    assert np.abs(mean - middle).max() > 1e-3
    drawn = settings_of(model, shards, Path("x"), crop="random", seed=4, **some)
    found = embed_measured(drawn, own, folder)
    starts = [int(generator(4, clip).integers(0, 6400 - at + 1)) for clip in folder.ids]
    cut = [wave[:, start : start + at] for wave, start in zip(waves, starts, strict=True)]
    assert np.allclose(found, unit(cut), atol=1e-6)
    # what else is measured does not move a clip's window
    alone = embed_measured(drawn, own, folder.only([7]))
    assert np.allclose(alone[0], found[7], atol=1e-6)


def test_repeated_sounds_against_padded_ones(model: Path, tmp_path: Path) -> None:
    """Short clips of the toy shards (0.33 s of 0.335 s; the front end of a longer window)."""
    own, folder = load(model, num_frames=64), ShardFolder(toy.toy_shards(tmp_path / "s", clips=4))
    seconds = own.front_end.window_samples(RATE) / RATE
    some = settings_of(model, tmp_path / "s", tmp_path, short="tile")
    found = embed_measured(some, own, folder)
    waves = [wave for wave, _ in ShardSounds(folder).read(range(4))]  # type: ignore[misc]
    full = [np.tile(wave, (1, 3))[:, : round(seconds * RATE)] for wave in waves]
    assert np.allclose(found, own.encode_audio([(wave, RATE) for wave in full]), atol=1e-6)
    assert np.abs(found - embed.embed_audio(own, folder)).max() > 1e-3
    plain = settings_of(model, tmp_path / "s", tmp_path)
    assert np.array_equal(embed_measured(plain, own, folder), embed.embed_audio(own, folder))


def test_scenes_are_asked_for_as_the_curation_paper_does(
    model: Path, shards: Path, tmp_path: Path, capsys: Any
) -> None:
    """15 classes told apart by "this is a sound of cafe restaurant", pooled and over the folds."""
    words = tmp_path / "scenes.txt"
    words.write_text("bus\ncafe/restaurant\ncity_center\ntram\nbeach\n")
    found = measured(
        model, shards, tmp_path / "a", crop="mean", crop_seconds=0.3, labels=str(words)
    )
    own, folder = load(model), ShardFolder(shards)
    settings = settings_of(model, shards, tmp_path, crop="mean", crop_seconds=0.3)
    audio = embed_measured(settings, own, folder)
    spoken = ["bus", "cafe restaurant", "city center", "tram", "beach"]
    text = own.encode_text([f"this is a sound of {name}" for name in spoken]).numpy()
    labels = [
        found["labels"][0].replace("/", " ").replace("_", " ") for found in folder.all_facts()
    ]
    right = [
        spoken[k] == label for k, label in zip((audio @ text.T).argmax(1), labels, strict=True)
    ]
    assert found["zero_shot"]["accuracy"] == pytest.approx(np.mean(right))
    assert found["zero_shot"]["classes"] == 5 and found["zero_shot"]["n"] == 12
    assert found["dataset"]["classes"] == 15 and found["dataset"]["official"] == 6300
    assert found["compat"]["labels"] == "names as they are, _ and / as a space"
    assert found["windows"] == {"crop": "mean", "seconds": 0.3, "short": "pad"}
    assert [row["n"] for row in found["folds"]["folds"]] == [2, 2, 2, 2]
    assert found["folds"]["without_fold"] == 4
    said = capsys.readouterr().out
    assert "TUT Acoustic Scenes 2017: 12 of 6,300 clips" in said
    assert "only 5 of TUT Acoustic Scenes 2017's 15 classes" in said
    plain = measured(model, shards, tmp_path / "b")
    assert "windows" not in plain and "gap" not in plain


def test_a_window_longer_than_the_encoder_sees_is_refused(
    model: Path, shards: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=r"--crop-seconds 5 is longer than the 0\.335 s"):
        measured(model, shards, tmp_path / "a", crop_seconds=5)
    assert not (tmp_path / "a").exists()


def test_a_sound_without_use_is_named(model: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(40, np.int16), RATE)
    (tmp_path / "l.csv").write_text("path,labels\nx.wav,tram\n")
    settings = PrepareAudio(source=str(tmp_path / "l.csv"), out=str(tmp_path / "s"), workers=1)
    assert run_audio(settings) == 0
    with pytest.raises(DataError, match=r"x in .* shorter than one window"):
        measured(model, tmp_path / "s", tmp_path / "a", crop="mean")


def test_slashes_stay_in_the_labels_of_other_data_sets() -> None:
    base = Evaluate(model="m", shards="s", out="o")
    assert rules_of(base, False, "ESC-50").words(["a/b"]) == ["a/b"]
    assert rules_of(base, False, "TUT Acoustic Scenes 2017").words(["a/b c"]) == ["a b c"]
