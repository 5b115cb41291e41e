"""ESC-50, UrbanSound8K, Clotho, AudioCaps, AudioSet as they are published, and VIP-ANT's index."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pivot.data.benchmarks import read_labels, refuse_ids
from pivot.data.ids import read_ids
from pivot.errors import DataError
from tests.media import tone
from tests.test_extracted import cut, index, row
from video_prep.errors import UserError
from video_prep.index import AUDIO, Clip, find_clips, read_clips
from video_prep.prepare import run, run_audio
from video_prep.recipe import Recipe
from video_prep.running.plan import make_plan
from video_prep.settings import PrepareAudio, PrepareFrames
from video_prep.shards import ShardFolder

ESC50 = (
    "filename,fold,target,category,esc10,src_file,take\n"
    "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
    "1-100038-A-14.wav,1,14,chirping_birds,False,100038,A\n"
    "2-114280-A-0.wav,2,0,dog,True,114280,A\n"
    "5-9032-A-0.wav,5,0,dog,True,9032,A\n"
)
URBANSOUND8K = (
    "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
    "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n"
    "100263-2-0-117.wav,100263,58.5,62.5,1,5,2,children_playing\n"
    "99812-1-2-0.wav,99812,159.522205,163.522205,2,7,1,car_horn\n"
)
CLOTHO = (
    "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
    'Santa Motor.wav,A machine whines.,"Clippers, electric ones.",Three,Four,Five\n'
    " Ambience Birds.wav,One,Two,Three,Four,Five\n"
    "x.y.wav,One,Two,,,\n"
)
AUDIOCAPS = "audiocap_id,youtube_id,start_time,caption\n"


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def touch(root: Path, *names: str) -> Path:
    for name in names:
        write(root / name, "")
    return root


def sound(path: Path, seconds: float = 0.2, rate: int = 8000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, rate).T, rate)


def esc50(root: Path, text: str = ESC50, *names: str) -> Path:
    """A folder with this table and empty files, those of ESC50 where none are named."""
    write(root / "meta/esc50.csv", text)
    names = names or ("1-100032-A-0.wav", "1-100038-A-14.wav", "2-114280-A-0.wav", "5-9032-A-0.wav")
    return touch(root / "audio", *names).parent


def urbansound8k(root: Path, text: str = URBANSOUND8K) -> Path:
    write(root / "metadata/UrbanSound8K.csv", text)
    files = ("fold5/100032-3-0-0.wav", "fold5/100263-2-0-117.wav", "fold7/99812-1-2-0.wav")
    return touch(root / "audio", *files).parent


def brief(clips: list[Clip]) -> list[tuple[str, str, int | None]]:
    return [(clip.id, clip.labels[0], clip.fold) for clip in clips]


# ---- ESC-50 --------------------------------------------------------------------------------


def test_esc50(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = esc50(tmp_path / "ESC-50-master")
    found = find_clips(str(root), AUDIO)
    assert brief(found.clips) == [
        ("1-100032-A-0", "dog", 1),
        ("1-100038-A-14", "chirping_birds", 1),
        ("2-114280-A-0", "dog", 2),
        ("5-9032-A-0", "dog", 5),
    ]
    first = found.clips[0]
    assert (first.source, first.start, first.end) == ("audio/1-100032-A-0.wav", None, None)
    assert found.dataset is not None
    assert found.dataset.facts() == {"name": "ESC-50", "split": None, "official": 2000}
    table = root / "meta/esc50.csv"
    assert capsys.readouterr().err == f"{table} lists 4 clips; ESC-50 has 2,000\n"
    assert read_clips(str(table), AUDIO) == found.clips
    moved = write(tmp_path / "elsewhere/clips.csv", ESC50)
    assert brief(read_clips(str(moved), AUDIO, media=str(root))) == brief(found.clips)


def test_esc50_in_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Missing clips are rows with a reason; extra ones are counted; another suffix is taken."""
    names = "2-114280-A-0.flac", "1-100032-A-0.ogg", "1-100032-A-0.wav", "7-7-A-7.wav", "note.txt"
    root = esc50(tmp_path, ESC50, *names)
    clips = read_clips(str(root), AUDIO)
    assert [clip.fault for clip in clips] == [
        None,
        ("missing_file", "no file is named 1-100038-A-14"),
        None,
        ("missing_file", "no file is named 5-9032-A-0"),
    ]
    assert [clips[0].source, clips[2].source] == [
        "audio/1-100032-A-0.wav",
        "audio/2-114280-A-0.flac",
    ]
    assert capsys.readouterr().err.splitlines() == [
        f"2 of 4 clips have no file in {tmp_path} (the first: 1-100038-A-14)",
        f"files in {tmp_path} that no row of {root}/meta/esc50.csv names are left out: 2 (the "
        "first: audio/1-100032-A-0.ogg)",
        f"{root}/meta/esc50.csv lists 4 clips; ESC-50 has 2,000",
    ]
    touch(tmp_path / "audio", "2-114280-A-0.mp3")
    text = "audio/2-114280-A-0.flac and audio/2-114280-A-0.mp3 are both 2-114280-A-0; keep one"
    assert read_clips(str(root), AUDIO)[2].fault == ("two_files", text)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("wav,1,14", "wav,0,14", "line 3: fold '0' of 1-100038-A-14.wav is not one of ESC-50's 1 "),
        ("wav,1,14", "wav,11,14", "line 3: fold '11' of 1-100038"),
        ("wav,1,14", "wav,one,14", "line 3: fold 'one'"),
        ("wav,1,14", "wav,1.0,14", "line 3: fold '1.0'"),
        ("wav,1,14", "wav,,14", "line 3: fold is empty"),
        ("wav,1,14", "wav,2,14", "line 3: fold is 2, but the name of 1-100038-A-14.wav says 1"),
        ("wav,1,14", "wav,1,15", "line 3: target is 15, but the name .* says 14"),
        ("dog,True,9032", "cat,True,9032", "line 5: target 0 is 'cat', but line 2 says '0' is 'do"),
        ("1-100038-A-14.wav,1,14,chirping_birds", "x.wav,1,14,dog", "line 3: target 14 is 'dog', "),
        ("dog,True,9032", ",True,9032", "line 5: category is empty"),
        ("2-114280-A-0.wav,2", "1-100032-A-0.flac,1", "clips 1 and 3 have the same id"),
        ("fold,", "folds,", "ESC-50's column 'fold' is missing"),
        ("9032,A", "9032,A,B", "line 5: 8 cells for 7 columns"),
        (
            "category",
            "caption",
            r"has other columns than ESC-50, UrbanSound8K, Clotho or FSD50K \('filen",
        ),
    ],
)
def test_wrong_esc50(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in ESC50
    with pytest.raises(UserError, match=message) as raised:
        read_clips(str(esc50(tmp_path, ESC50.replace(old, new))), AUDIO)
    assert "\n" not in str(raised.value)


def test_labels_in_another_order(tmp_path: Path) -> None:
    """Names decide: neither the order of the rows nor that of the columns changes a clip."""
    rows = [line.split(",") for line in ESC50.splitlines()]
    turned = "\n".join(",".join(reversed(cells)) for cells in (rows[0], *rows[:0:-1])) + "\n"
    a = read_clips(str(esc50(tmp_path / "a")), AUDIO)
    b = read_clips(str(esc50(tmp_path / "b", turned)), AUDIO)
    assert brief(b) == brief(a)[::-1]
    assert read_labels(tmp_path / "a/meta/esc50.csv") == ["dog", "chirping birds"]
    assert read_labels(tmp_path / "b/meta/esc50.csv") == ["dog", "chirping birds"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_tables_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    root = esc50(tmp_path / "a")
    clips = brief(read_clips(str(root), AUDIO))
    write(root / "meta/esc50.csv", ESC50.replace("\n", "\r\n").replace(",", "\t"), encoding)
    assert brief(read_clips(str(root), AUDIO)) == clips
    write(root / "meta/esc50.csv", ESC50, "utf-16-be")
    with pytest.raises(UserError, match="holds NUL bytes and is no text; save it as UTF-8"):
        read_clips(str(root), AUDIO)


def test_no_file_of_a_table(tmp_path: Path) -> None:
    table = str(write(tmp_path / "a/esc50.csv", ESC50))
    with pytest.raises(UserError, match=r"none of the 4 clips of .* it holds no media file"):
        read_clips(table, AUDIO)
    touch(tmp_path / "b", "x.wav")
    with pytest.raises(UserError, match=r"looked for 1-100032-A-0.wav, ...; there are x.wav"):
        read_clips(table, AUDIO, media=str(tmp_path / "b"))
    with pytest.raises(UserError, match=r"--media .*/gone is not a folder"):
        read_clips(table, AUDIO, media=str(tmp_path / "gone"))
    with pytest.raises(UserError, match=r"--already-cut goes with .* is ESC-50's table"):
        read_clips(table, AUDIO, already_cut=True)
    with pytest.raises(UserError, match="lists no clips; it has no row but its header"):
        read_clips(str(write(tmp_path / "esc50.csv", ESC50.splitlines()[0])), AUDIO)
    with pytest.raises(UserError, match="no video file; pivot prepare-audio takes sounds"):
        read_clips(str(esc50(tmp_path / "c")))


def test_a_list_with_paths_stays_the_users_own(tmp_path: Path) -> None:
    text = "path,filename,category,labels\na.wav,a.wav,dog,cat\n"
    found = find_clips(str(write(tmp_path / "l.csv", text)), AUDIO)
    assert found.dataset is None
    assert found.clips[0].labels == ("cat",)


def test_real_esc50(tmp_path: Path, realdata: Path) -> None:
    """All 2,000 clips; their names say fold, source, take and class."""
    with (realdata / "labels/esc50/esc50_eval.csv").open(newline="") as file:
        rows = [(line["src_wav"], line["caption"]) for line in csv.DictReader(file)]
    lines = [ESC50.splitlines()[0]]
    for name, label in rows:
        fold, source, take, target = name.removesuffix(".wav").split("-")
        lines.append(f"{name},{fold},{target},{label.replace(' ', '_')},False,{source},{take}")
    found = find_clips(str(esc50(tmp_path, "\n".join(lines))), AUDIO)
    assert len(found.clips) == 2000
    assert sum(clip.fault is None for clip in found.clips) == 4
    assert len({clip.labels for clip in found.clips}) == 50
    assert [sum(clip.fold == k for clip in found.clips) for k in range(1, 6)] == [400] * 5


# ---- UrbanSound8K --------------------------------------------------------------------------


def test_urbansound8k(tmp_path: Path) -> None:
    found = find_clips(str(urbansound8k(tmp_path)), AUDIO)
    assert brief(found.clips) == [
        ("100032-3-0-0", "dog_bark", 5),
        ("100263-2-0-117", "children_playing", 5),
        ("99812-1-2-0", "car_horn", 7),
    ]
    # start and end are places in the recording that the file was cut from
    assert {(clip.start, clip.end) for clip in found.clips} == {(None, None)}
    assert found.clips[2].source == "audio/fold7/99812-1-2-0.wav"
    labels = read_labels(tmp_path / "metadata/UrbanSound8K.csv")
    assert labels == ["car horn", "children playing", "dog bark"]  # by classID
    assert found.dataset is not None
    assert found.dataset.facts() == {"name": "UrbanSound8K", "split": None, "official": 8732}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",2,7,1,", ",2,3,1,", "line 4: fold 3, but audio/fold7/99812-1-2-0.wav lies in fold7"),
        (",2,7,1,", ",2,0,1,", "line 4: fold '0' of 99812-1-2-0.wav is not one of UrbanSound8K's"),
        (",2,7,1,", ",2,11,1,", "line 4: fold '11'"),
        (",2,7,1,", ",2,7,4,", "line 4: classID is 4, but the name of 99812-1-2-0.wav says 1"),
        ("car_horn", "dog_bark", "line 4: classID 1 is 'dog_bark', but line 2 says 'dog_bark' is"),
        (",classID", ",class_id", "UrbanSound8K's column 'classID' is missing"),
    ],
)
def test_wrong_urbansound8k(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in URBANSOUND8K
    with pytest.raises(UserError, match=message):
        read_clips(str(urbansound8k(tmp_path, URBANSOUND8K.replace(old, new))), AUDIO)


def test_a_copy_in_another_fold_is_extra(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = urbansound8k(tmp_path)
    touch(root / "audio", "fold3/99812-1-2-0.wav")
    assert read_clips(str(root), AUDIO)[2].source == "audio/fold7/99812-1-2-0.wav"
    assert "left out: 1 (the first: audio/fold3/99812-1-2-0.wav)" in capsys.readouterr().err


def test_real_urbansound8k(tmp_path: Path, realdata: Path) -> None:
    """Fold, class and name of all 8,732 rows agree."""
    lines = [URBANSOUND8K.splitlines()[0]]
    with (realdata / "labels/urbansound8k/us8k.csv").open(newline="") as file:
        for line in csv.DictReader(file):
            _, folder, name = line["file_name"].split("/")
            source, number, *_ = name.split("-")
            fold = folder.removeprefix("fold")
            lines.append(f"{name},{source},0,4,1,{fold},{number},{line['label']}")
    clips = read_clips(str(urbansound8k(tmp_path, "\n".join(lines))), AUDIO)
    assert len(clips) == 8732
    assert len({clip.labels for clip in clips}) == 10
    assert [sum(clip.fold == k for clip in clips) for k in (1, 5, 10)] == [873, 936, 837]


# ---- Clotho --------------------------------------------------------------------------------


def clotho(root: Path) -> Path:
    write(root / "clotho_captions_evaluation.csv", CLOTHO)
    names = "Santa Motor.wav", " Ambience Birds.wav", "x.y.wav"
    return touch(root / "clotho_audio_evaluation/evaluation", *names).parent.parent


def test_clotho(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = clotho(tmp_path)
    touch(root / "development", "Santa Motor.wav", "else.wav")  # another split, and nothing extra
    found = find_clips(str(root), AUDIO)
    assert [clip.id for clip in found.clips] == ["Santa Motor", "Ambience Birds", "x.y"]
    assert found.clips[0].captions == (
        "A machine whines.",
        "Clippers, electric ones.",
        "Three",
        "Four",
        "Five",
    )
    assert found.clips[0].path == root / "clotho_audio_evaluation/evaluation/Santa Motor.wav"
    assert found.clips[1].path.name == " Ambience Birds.wav"
    assert found.clips[2].captions == ("One", "Two")
    assert {clip.fold for clip in found.clips} == {None}
    assert found.dataset is not None
    facts = {"name": "Clotho", "split": "evaluation", "official": 1045}
    assert found.dataset.facts() == facts
    table = root / "clotho_captions_evaluation.csv"
    assert capsys.readouterr().err.splitlines() == [
        f"{table} lists 3 clips; Clotho evaluation has 1,045",
        f"1 of 3 clips of {table} have fewer than 5 captions (the first: x.y)",
    ]


def test_clotho_of_an_unknown_split(tmp_path: Path) -> None:
    root = touch(tmp_path, "Santa Motor.flac", "x.y.wav")
    found = find_clips(str(write(root / "mine.csv", CLOTHO)), AUDIO)
    assert [clip.source for clip in found.clips] == [
        "Santa Motor.flac",
        " Ambience Birds.wav",
        "x.y.wav",
    ]
    assert found.dataset is not None
    assert found.dataset.facts() == {"name": "Clotho", "split": None, "official": None}


def test_one_table_of_several(tmp_path: Path) -> None:
    root = clotho(tmp_path)
    write(root / "clotho_captions_development.csv", CLOTHO)
    with pytest.raises(UserError, match=r"several tables of clips .*development.csv, clotho_"):
        read_clips(str(root), AUDIO)
    assert len(read_clips(str(root / "clotho_captions_evaluation.csv"), AUDIO)) == 3


@pytest.mark.parametrize(
    ("name", "split", "clips"),
    [("train", "development", 3839), ("val", "validation", 1045), ("test", "evaluation", 1045)],
)
def test_real_clotho(tmp_path: Path, realdata: Path, name: str, split: str, clips: int) -> None:
    table = realdata / f"captions/clotho_v2/{name}.csv"
    touch(tmp_path, read_ids(table)[-1])
    found = find_clips(str(table), AUDIO, media=str(tmp_path))
    assert (len(found.clips), found.clips[-1].fault) == (clips, None)
    assert {len(clip.captions) for clip in found.clips} == {5}
    assert found.dataset is not None
    assert (found.dataset.split, found.dataset.official) == (split, clips)


# ---- AudioCaps and AudioSet ------------------------------------------------------------------


def test_audiocaps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [f"{k},aaa,30,caption {k}\n" for k in range(5)] + ["9,-bbb,10,alone\n"]
    source = str(write(tmp_path / "test.csv", AUDIOCAPS + "".join(lines)))
    media = touch(tmp_path / "m", "aaa_30.wav", "-bbb.wav", "zzz.wav")
    found = find_clips(source, AUDIO, media=str(media))
    assert [(clip.id, clip.start, len(clip.captions)) for clip in found.clips] == [
        ("aaa", None, 5),
        ("-bbb", 10.0, 1),
    ]
    assert found.dataset is not None
    assert found.dataset.facts() == {"name": "AudioCaps", "split": "test", "official": 975}
    said = capsys.readouterr().err.splitlines()
    assert said == [
        f"files in {media} that no row names are left out: 1 (the first: zzz.wav)",
        "sound files named by their id alone are taken as of whole videos: 1; add --already-cut "
        "where they hold the segment",
        f"{source} lists 2 clips; AudioCaps test has 975",
        f"1 of 2 clips of {source} have fewer than 5 captions (the first: -bbb)",
    ]
    clips = read_clips(source, AUDIO, media=str(media), already_cut=True)
    assert [clip.start for clip in clips] == [None, None]


@pytest.mark.parametrize(("name", "clips"), [("train", 49838), ("val", 495), ("test", 975)])
def test_real_audiocaps(tmp_path: Path, realdata: Path, name: str, clips: int) -> None:
    table = realdata / f"captions/audiocaps_v1/{name}.csv"
    media = touch(tmp_path, f"{read_ids(table)[0]}.wav")
    found = find_clips(str(table), AUDIO, media=str(media), already_cut=True)
    assert len(found.clips) == clips
    assert {len(clip.captions) for clip in found.clips} == {1 if name == "train" else 5}
    assert found.dataset is not None
    assert (found.dataset.split, found.dataset.official) == (name, clips)


def test_a_list_beside_files_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder of files was taken by its files before, and still is; but no longer in silence."""
    touch(tmp_path, "aaa.wav")
    write(tmp_path / "test.csv", f"{AUDIOCAPS}1,aaa,30,a caption\n")
    write(tmp_path / "train.csv", "f\xfcr", "latin-1")
    found = find_clips(str(tmp_path), AUDIO)
    assert (found.clips[0].captions, found.dataset) == ((), None)
    assert capsys.readouterr().err.startswith(f"{tmp_path}/test.csv is AudioCaps's list, and is n")


@pytest.mark.parametrize(
    ("name", "split", "clips"),
    [("balanced_train_segments", "balanced", 22160), ("eval_segments", "eval", 20371)],
)
def test_real_audioset(tmp_path: Path, realdata: Path, name: str, split: str, clips: int) -> None:
    """527 classes, in the ontology's order, as the paper's evaluation has them."""
    folder = realdata / "labels/audioset"
    ids = read_ids(folder / f"{name}.csv")
    media = touch(tmp_path, f"Y{ids[0]}.wav")
    found = find_clips(str(folder / f"{name}.csv"), AUDIO, media=str(media))
    assert [clip.id for clip in found.clips] == ids
    assert found.dataset is not None
    assert (len(ids), found.dataset.split, found.dataset.official) == (clips, split, clips)
    labels = read_labels(folder / "ontology.json")
    used = {label for clip in found.clips for label in clip.labels}
    classes = [label for label in labels if label in used]
    assert (len(labels), len(classes)) == (632, 527)
    with (folder / "ontology.json").open() as file:
        order = [entry["name"] for entry in json.load(file)]
    assert classes == sorted(classes, key=order.index)
    assert set(classes) == set(read_labels(folder / "class_labels_indices.csv"))


def test_ids_are_no_labels(tmp_path: Path) -> None:
    """As a text for CLIP, /m/04gy_2 would give a score that means nothing."""
    names = write(tmp_path / "a.txt", "dog\n/m/04gy_2\n")
    with pytest.raises(DataError, match=r"a\.txt has the id '/m/04gy_2' for a label; prepare"):
        read_labels(names)
    with pytest.raises(DataError, match="shards has the id '/t/dd00088'"):
        refuse_ids(["dog", "/t/dd00088"], "shards")
    refuse_ids(["dog", "and/or", "24/7 noise"], "shards")


def test_unknown_label(tmp_path: Path) -> None:
    write(tmp_path / "ontology.json", '[{"id": "/m/09x0r", "name": "Speech"}]')
    source = write(tmp_path / "eval_segments.csv", '# YTID\naaa, 0.000, 10.000, "/m/0zzz"\n')
    media = touch(tmp_path / "m", "aaa.wav")
    with pytest.raises(UserError, match=r"label '/m/0zzz' is not in .*ontology.json"):
        read_clips(str(source), AUDIO, media=str(media))


# ---- shards --------------------------------------------------------------------------------


def prepared(source: Path, out: Path, **more: Any) -> ShardFolder:
    given = PrepareAudio(source=str(source), out=str(out), workers=1, audio_rate=8000, **more)
    assert run_audio(given) == 0
    return ShardFolder(out)


def test_labelled_shards(tmp_path: Path) -> None:
    root = esc50(tmp_path / "ESC-50-master")
    for name in ("1-100032-A-0", "5-9032-A-0"):
        sound(root / f"audio/{name}.wav")
    (root / "audio/2-114280-A-0.wav").unlink()
    shards = prepared(root, tmp_path / "out", shard_size=2)
    assert shards.ids == ["1-100032-A-0", "5-9032-A-0"]
    assert [(facts["labels"], facts["fold"]) for facts in shards.all_facts()] == [
        (["dog"], 1),
        (["dog"], 5),
    ]
    assert shards.dataset == {
        "name": "ESC-50",
        "split": None,
        "official": 2000,
        "listed": 4,
        "present": 2,
    }
    rows = map(json.loads, (tmp_path / "out/failures.jsonl").read_text().splitlines())
    assert [row["reason"] for row in rows] == ["empty_file", "missing_file"]
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out/shard-00001.json").unlink()
    (tmp_path / "out/manifest.json").unlink()
    prepared(root, tmp_path / "out", shard_size=2)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    table = root / "meta/esc50.csv"
    write(table, ESC50.replace("5-9032-A-0.wav,5", "x.wav,4"))
    (root / "audio/5-9032-A-0.wav").rename(root / "audio/x.wav")
    with pytest.raises(UserError, match=r"was begun with other inputs .clip '5-9032-A-0': id"):
        prepared(root, tmp_path / "out", shard_size=2)


def test_another_fold_is_another_plan(tmp_path: Path) -> None:
    text = "filename,fold,target,category\na.wav,{},0,dog\n"
    sound(esc50(tmp_path, text.format(1), "b.wav") / "audio/a.wav")
    prepared(tmp_path, tmp_path / "out")
    write(tmp_path / "meta/esc50.csv", text.format(2))
    with pytest.raises(UserError, match="clip 'a': fold 1, not 2"):
        prepared(tmp_path, tmp_path / "out")


def test_shards_with_captions(tmp_path: Path) -> None:
    root = clotho(tmp_path)
    for name in ("Santa Motor", " Ambience Birds", "x.y"):
        sound(root / f"clotho_audio_evaluation/evaluation/{name}.wav")
    shards = prepared(root, tmp_path / "out")
    assert [len(facts["captions"]) for facts in shards.all_facts()] == [5, 5, 2]
    assert not any("fold" in facts for facts in shards.all_facts())
    assert shards.dataset is not None
    assert shards.dataset["split"] == "evaluation"
    assert read_ids(root / "clotho_captions_evaluation.csv")[1] == "Ambience Birds.wav"


def test_users_own_shards_are_of_no_data_set(tmp_path: Path) -> None:
    sound(tmp_path / "in/a.wav")
    assert prepared(tmp_path / "in", tmp_path / "out").dataset is None


def test_old_plans_stay(tmp_path: Path) -> None:
    """A folder that was begun before clips had folds goes on: its plan has the same hash."""
    faults = [("missing_file", f"no file is named {name}") for name in "ab"]
    clips = [
        Clip("a", tmp_path / "a.*", 1.0, 2.5, ("dog",), ("one",), "a", fault=faults[0]),
        Clip("b", tmp_path / "b.*", source="b", fault=faults[1]),
    ]
    plan = make_plan("prepare-audio", Recipe(num_frames=0), 4, clips, {"name": "ESC-50"})
    assert plan.fingerprint == "5fceacaed5c3b06a4a90ae516bf68cb94821f3643601ead03a22f53dd617b932"


def test_part_of_a_folder(tmp_path: Path) -> None:
    for k, name in enumerate("abc"):
        sound(tmp_path / f"in/{name}.wav", 0.1 * (k + 1))
    shards = prepared(tmp_path / "in", tmp_path / "out")
    part = shards.only([2, 0, 2])
    assert (part.ids, part.fingerprint) == (["c", "a", "c"], shards.fingerprint)
    assert [part.sound(i)[0].shape[1] for i in range(3)] == [2400, 800, 2400]
    assert np.array_equal(part.sound(1)[0], shards.sound(0)[0])
    assert (shards.ids, shards.index_of("a"), part.index_of("a")) == (["a", "b", "c"], 0, 1)


# ---- VIP-ANT's index -------------------------------------------------------------------------


def test_index_to_shards(tmp_path: Path) -> None:
    """Labels and captions come through; without its aclip a clip has no sound, and says so."""
    cut(tmp_path / "all_0_35000", "-aaa")
    cut(tmp_path / "all_35000_70000", "_bbb", names="p0.4.4", folder="audio", first=10)
    cut(tmp_path / "all_0_35000", "ccc")
    (tmp_path / "all_0_35000/aclip/ccc.p0.mp3").unlink()
    write(tmp_path / "ontology.json", '[{"id": "/m/09ddx", "name": "Duck"}]')
    five = [f"caption {k}" for k in range(5)]
    source = index(
        tmp_path / "src_audiocaps_test.csv",
        row("_bbb", dir="all_35000_70000", captions=five),
        row("-aaa", captions=["one"], labels=[]),
        row("ccc", captions=five),
        row("gone", captions=five),
    )
    sounds = prepared(Path(source), tmp_path / "sounds")
    assert sounds.ids == ["_bbb", "-aaa"]
    assert (sounds.captions(0), sounds.captions(1)) == (tuple(five), ("one",))
    assert (sounds.labels(0), sounds.labels(1)) == (("Duck",), ())
    assert sounds.dataset is not None
    assert (sounds.dataset["name"], sounds.dataset["split"]) == ("AudioCaps", "test")
    assert (sounds.dataset["listed"], sounds.dataset["present"]) == (4, 2)
    failed = (tmp_path / "sounds/failures.jsonl").read_text().splitlines()
    assert [json.loads(line)["id"] for line in failed] == ["ccc", "gone"]
    given = PrepareFrames(source=source, out=str(tmp_path / "out"), workers=1)
    assert run(given) == 0
    frames = ShardFolder(tmp_path / "out")
    assert (frames.ids, frames.ids_without_sound) == (["_bbb", "-aaa", "ccc"], ["ccc"])
    assert read_ids(source) == ["_bbb", "-aaa", "ccc", "gone"]


# ---- lists of ids --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "ids"),
    [
        ("a.txt", "-b\n\n_a \n-b\n", ["-b", "_a", "-b"]),
        ("a.csv", "audiocap_id,youtube_id,start_time,caption\n7,-b,3,x\n8,_a,3,y\n", ["-b", "_a"]),
        ("a.csv", ESC50, [f"{line.split(',')[0]}" for line in ESC50.splitlines()[1:]]),
        ("a.csv", URBANSOUND8K, [f"{x.split(',')[0]}" for x in URBANSOUND8K.splitlines()[1:]]),
        ("a.csv", '# YTID\n-b, 0.000, 10.000, "/m/1,/m/2"\n', ["-b"]),
        ("a.csv", "-b_000030.mp4,a label\n", ["-b_000030.mp4"]),
        ("a.csv", "-b\n_a\n", ["-b", "_a"]),
        ("a.csv", '{"id": "-b", "dir": "x"}\n{"id": "_a"}\n', ["-b", "_a"]),
        ("a.tsv", 'id\tlabel\n"b\tx\n', ['"b']),
        ("a.json", '["b", 7]', ["b", "7"]),
        ("a.json", '{"b": [1], "a": []}', ["b", "a"]),
        ("a.jsonl", '"b"\n{"audio_id": "a"}\n', ["b", "a"]),
    ],
)
def test_ids(tmp_path: Path, name: str, text: str, ids: list[str]) -> None:
    assert read_ids(write(tmp_path / name, text)) == ids


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "clips,caption\na,b\n", "no id column among clips, caption; call one `id`"),
        ("a.csv", "id,caption\na,b\n,c\n", "row 3 has no id"),
        ("a.csv", "id,caption\n", "holds no id"),
        ("a.txt", "  \n", "is empty"),
        ("a.json", "3", "holds one value, not a list of ids"),
        ("a.json", '["a", ["b"]]', "entry 2 is no id"),
        ("a.json", '["a", true]', "entry 2 is no id"),
        ("a.jsonl", '{"name": "a"}', "value 1 is no id; call its key `id`"),
        ("a.npy", "x", "ids are read from txt, csv, tsv, json or jsonl"),
        ("gone/", "", "is a folder"),
    ],
)
def test_wrong_ids(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    else:
        write(path, text)
    with pytest.raises(DataError, match=message) as raised:
        read_ids(path)
    assert "\n" not in str(raised.value)


def test_real_ids(realdata: Path) -> None:
    ids = read_ids(realdata / "labels/audiocaps_eval_ids/audiocaps_eval.csv")
    assert (len(ids), len(set(ids)), ids[0]) == (200, 200, "rPkCYq4Zjwk")
    assert len(read_ids(realdata / "captions/audiocaps_v1/test.csv")) == 4875
    assert set(ids) <= set(read_ids(realdata / "captions/audiocaps_v1/test.csv"))
