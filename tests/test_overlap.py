"""Overlap between data sets: which ids are read from what, what counts, and what is refused."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from pivot.classification.command import run as train_classifier
from pivot.data import overlap_command
from pivot.data.held_out import refuse_overlap
from pivot.data.overlap import overlap
from pivot.data.pair_tables import Pair
from pivot.data.pairs import write_pairs
from pivot.data.recordings import Recordings, recordings, recordings_of_shards
from pivot.data.sound_hash import HEAD, form_of, hash_in_flac, hash_of, is_silence
from pivot.errors import DataError, SettingsError
from pivot.evaluation.scaling.command import run as scaling_curve
from pivot.settings import CheckOverlap, FitSettings, ScalingCurve, TrainClassifier
from tests import toy
from video_prep.decode import decode_sound
from video_prep.decoding.sound import load_sound
from video_prep.index import read_clips
from video_prep.running.plan import clip_row, make_plan
from video_prep.settings import PrepareAudio
from video_prep.shards import FORMAT, ShardFolder, content_fingerprint
from video_prep.sources.clip import AUDIO, Clip
from video_prep.sources.recordings import clotho_sounds, freesound_id, id_in_name, youtube_id
from video_prep.storage.members import encode_sound, members_of
from video_prep.storage.shard_writer import write_shard

YOUTUBE = ["7fmOlUlwoNg", "6BJ455B1aAs", "--PJHxphWEs", "-0CamVQdP_Y"]  # of AudioCaps, AudioSet


def told(found: Recordings, kind: str) -> dict[str, str]:
    """Name -> id of the clips that have one of this kind."""
    return {n: i for n, i in zip(found.names, found.ids[kind], strict=True) if i is not None}


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A text file."""
    path.write_bytes(text.encode(encoding))
    return path


def ids_of(path: Path, name: str, ids: Iterable[object], column: str = "freesound_id") -> Path:
    """A table of clips c0, c1, ... and their ids."""
    rows = "".join(f"{name}{i},{one}\n" for i, one in enumerate(ids))
    return write(path / f"{name}.csv", f"id,{column}\n{rows}")


def waves(count: int, first: int = 0) -> list[np.ndarray]:
    """Int16 noise (1, samples), each its own."""
    rngs = [np.random.default_rng([first + i, 9]) for i in range(count)]
    return [rng.integers(-9000, 9000, (1, 800), np.int16) for rng in rngs]


def shards_of(
    path: Path,
    sounds: list[tuple[str, np.ndarray, int]],
    kind: str = "FLAC",
    settings: dict[str, Any] | None = None,
    **facts: list[str | None],
) -> ShardFolder:
    """Shards of (id, int16 wave, rate) without frames; `facts` has a list for each key."""
    path.mkdir()
    with write_shard(path, 0, "plan") as shard:
        for number, (name, wave, rate) in enumerate(sounds):
            suffix, data = encode_sound(wave, rate, kind)
            own = {key: values[number] for key, values in facts.items() if values[number]}
            about: dict[str, Any] = {"id": name, "labels": [], "captions": [], **own}
            members = {suffix: data, "json": json.dumps(about).encode()}
            shard.add({"id": name, "key": f"k{number}", "flags": []}, members)
    index = json.loads((path / "shard-00000.json").read_text())
    manifest = {
        "format": FORMAT, "plan": "plan", "num_frames": 0, "settings": settings or {},
        "fingerprint": content_fingerprint([index["sha256"]]),
        "shards": [{"name": "shard-00000", "sha256": index["sha256"], "clips": len(sounds)}],
    }  # fmt: skip
    (path / "manifest.json").write_text(json.dumps(manifest))
    return ShardFolder(path)


# ---- ids ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("100032", "100032"), (100032, "100032"), (" 0042 ", "42"), ("Not found", None),
        ("https://freesound.org/people/Benboncan/sounds/80399", "80399"),
        ("/people/A b/sounds/7/", "7"), ("https://freesound.org/s/12/", "12"), ("", None),
        ("0", None), (True, None), (None, None), ("1.5", None), ("٣", None),
    ],
)  # fmt: skip
def test_freesound_ids(value: object, wanted: str | None) -> None:
    assert freesound_id(value) == wanted


def test_youtube_ids() -> None:
    for text in ("7fmOlUlwoNg", "https://www.youtube.com/watch?v=7fmOlUlwoNg&t=3",
                 "https://youtu.be/7fmOlUlwoNg"):  # fmt: skip
        assert youtube_id(text) == "7fmOlUlwoNg"
    assert youtube_id("two words") is None and youtube_id(None) is None


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("1-100032-A-0", ("freesound", "100032")),
        ("001-Dog_bark/1-30226-A.ogg", ("freesound", "30226")),  # eleven letters, and no video
        ("audio/fold5/100032-3-0-0.wav", ("freesound", "100032")),
        ("451__mikejedw__bong2_variant#2.wav", ("freesound", "451")),
        ("Y--PJHxphWEs.wav", ("youtube", "--PJHxphWEs")),
        ("-0CamVQdP_Y_30_40.flac", ("youtube", "-0CamVQdP_Y")),
        ("glLQrEijrKg_000300.mp4", ("youtube", "glLQrEijrKg")),
        ("7fmOlUlwoNg_20", ("youtube", "7fmOlUlwoNg")),
        ("7fmOlUlwoNh", None),  # 66 bits: the last letter is none of the 16
        ("20091217.18.chains.wav", None), ("clip12", None), ("100032", None),
    ],
)  # fmt: skip
def test_names_that_tell(name: str, wanted: tuple[str, str] | None) -> None:
    assert id_in_name(name) == wanted


def test_names_are_believed_together(tmp_path: Path) -> None:
    """One word of eleven letters among twenty names is no YouTube id; four of seven names are."""
    chance = write(tmp_path / "words.txt", "rain-on-rog\nwind\n")
    assert told(recordings(chance), "youtube") == {"rain-on-rog": "rain-on-rog"}
    many = write(tmp_path / "many.txt", "rain-on-rog\n" + "".join(f"w{i}\n" for i in range(19)))
    assert not told(recordings(many), "youtube")
    mixed = write(tmp_path / "mixed.txt", "\n".join([*YOUTUBE, "rain", "1-17-A-3", "9__me__it"]))
    assert set(told(recordings(mixed), "youtube").values()) == set(YOUTUBE)
    assert told(recordings(mixed), "freesound") == {"1-17-A-3": "17", "9__me__it": "9"}


def test_tables_as_they_are_published(tmp_path: Path) -> None:
    esc = (
        "filename,fold,target,category,esc10,src_file,take\n"
        "1-100032-A-0.wav,1,0,dog,True,100032,A\n"
    )
    assert told(recordings(write(tmp_path / "esc50.csv", esc)), "freesound") == {
        "1-100032-A-0.wav": "100032"
    }
    us8k = (
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "100032-3-0-0.wav,100032,0.0,0.3,1,5,3,dog_bark\n"
    )
    found = recordings(write(tmp_path / "UrbanSound8K.csv", us8k))
    assert told(found, "freesound") == {"100032-3-0-0.wav": "100032"}
    fsd = "fname,labels,mids,split\n64760,Electric_guitar,/m/02sgy,train\n"
    assert told(recordings(write(tmp_path / "dev.csv", fsd)), "freesound") == {"64760": "64760"}
    kaggle = write(tmp_path / "train.csv", "fname,labels\n00044347.wav,Hi-hat\n")  # no Freesound id
    assert not told(recordings(kaggle), "freesound")
    wav = {"data": [{"id": "17179", "href": "/people/jon/sounds/17179", "caption": "Rain."}]}
    found = recordings(write(tmp_path / "fsd_final.json", json.dumps(wav)))
    assert told(found, "freesound") == {"17179": "17179"}


def test_lists_of_videos_as_they_are_published(tmp_path: Path) -> None:
    caps = "audiocap_id,youtube_id,start_time,caption\n1,7fmOlUlwoNg,20,A\n2,7fmOlUlwoNg,20,B\n"
    found = recordings(write(tmp_path / "audiocaps.csv", caps))
    assert len(found) == 1 and told(found, "youtube") == {"7fmOlUlwoNg": "7fmOlUlwoNg"}
    head = "# Segments csv\n# YTID, start_seconds, end_seconds, positive_labels\n"
    rows = "".join(f'{video}, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n' for video in YOUTUBE)
    found = recordings(write(tmp_path / "segments.csv", head + rows))
    assert list(told(found, "youtube").values()) == YOUTUBE
    rows = "".join(f"{video}_000030.mp4,dog barking\n" for video in YOUTUBE)
    found = recordings(write(tmp_path / "vgg.csv", rows))
    assert list(told(found, "youtube").values()) == YOUTUBE


def test_clothos_metadata(tmp_path: Path) -> None:
    """It lies beside the captions, in Latin-1, with sounds that Freesound no longer has."""
    captions = write(
        tmp_path / "clotho_captions_evaluation.csv",
        "file_name,caption_1,caption_2\nRain é.wav,a,b\nWind.wav,c,d\n",
    )
    assert not told(recordings(captions), "freesound") and clotho_sounds(captions) == {}
    meta = write(
        tmp_path / "clotho_metadata_evaluation.csv",
        "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
        "Rain é.wav,rain;é,80399,https://freesound.org/people/A/sounds/80399,,A,l\n"
        "Wind.wav,wind,Not found,Not found,,B,l\n",
        "latin-1",
    )
    assert told(recordings(captions), "freesound") == {"Rain é.wav": "80399"}
    assert clotho_sounds(captions) == {"Rain é.wav": "80399"}
    assert told(recordings(meta), "freesound") == {"Rain é.wav": "80399"}
    assert recordings(meta).names == ["Rain é.wav", "Wind.wav"]
    write(meta, "file_name;keywords;sound_id\nWind.wav;a,b;7\n")  # as the test split
    assert told(recordings(captions), "freesound") == {"Wind.wav": "7"}
    write(meta, "file_name,sound\na,1\n")
    with pytest.raises(Exception, match="lacks the column file_name or sound_id"):
        recordings(captions)


@pytest.mark.parametrize("name", ["p.parquet", "p.csv", "p.jsonl", "p_cap.csv"])
def test_pairs_files_of_every_layout(tmp_path: Path, name: str) -> None:
    rows = [Pair(clip, str(i), f"text {i}") for i, clip in enumerate([*YOUTUBE, YOUTUBE[0]])]
    write_pairs(tmp_path / name, rows, {})
    found = recordings(tmp_path / name)
    assert found.names == YOUTUBE and found.known("youtube") == 4


def test_a_kind_that_the_user_says(tmp_path: Path) -> None:
    path = write(tmp_path / "fsd.txt", "64760.wav\ndev_audio/16399\n")
    assert not told(recordings(path), "freesound")
    assert list(told(recordings(f"freesound:{path}"), "freesound").values()) == ["64760", "16399"]
    wrong = write(tmp_path / "x.txt", "12\nrain\n")
    with pytest.raises(DataError, match="1 names are no Freesound id, the first 'rain'"):
        recordings(f"freesound:{wrong}")


# ---- content --------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 8])
def test_flac_and_wav_of_one_sound_agree(tmp_path: Path, channels: int) -> None:
    """The MD5 in a FLAC's head is that of the decoded samples; without it they are decoded."""
    wave = np.random.default_rng(3).integers(-32768, 32767, (channels, 1234), np.int16)
    flac = encode_sound(wave, 44100)[1]
    wanted = hash_of(wave, 44100)
    assert hash_in_flac(flac[:HEAD]) == wanted and form_of(wanted) == f"44100/{channels}"
    assert hash_of(*reversed_pair(flac)) == wanted
    assert hash_in_flac(flac[:26] + bytes(16)) is None  # written to a pipe
    assert hash_in_flac(flac[:30]) is None and hash_in_flac(encode_sound(wave, 8, "WAV")[1]) is None
    deep = io.BytesIO()
    soundfile.write(deep, wave.T / 32768, 44100, format="FLAC", subtype="PCM_24")
    assert hash_in_flac(deep.getvalue()) is None  # 24 bits: not what shards would hold
    (tmp_path / "sounds").mkdir()
    for name, data in (("a.flac", flac), ("b.wav", encode_sound(wave, 44100, "WAV")[1]),
                       ("c.flac", flac[:26] + bytes(16) + flac[42:])):  # fmt: skip
        (tmp_path / "sounds" / name).write_bytes(data)
    assert recordings(tmp_path / "sounds").ids["content"] == [wanted] * 3


def reversed_pair(flac: bytes) -> tuple[np.ndarray, int]:
    """A FLAC as soundfile, which knows nothing of its MD5, decodes it."""
    wave, rate = soundfile.read(io.BytesIO(flac), dtype="int16", always_2d=True)
    return wave.T, rate


def test_content_of_shards(tmp_path: Path) -> None:
    sounds = waves(6)
    zeros = np.zeros((1, 800), np.int16)
    a = [(f"a{i}", sounds[i], 8000) for i in range(4)] + [("none", zeros, 8000)]
    b = [(f"b{i}", sounds[i], 8000) for i in (5, 2, 1)] + [("still", zeros, 8000)]
    shards_of(tmp_path / "a", a)
    shards_of(tmp_path / "b", b, "WAV")
    found = overlap(tmp_path / "a", tmp_path / "b")
    assert list(found.rows()) == [("a1", "b1", "content"), ("a2", "b2", "content")]
    assert found.of_b.tolist() == [False, True, True, False]
    assert is_silence(hash_of(zeros, 8000)) and not is_silence(hash_of(sounds[0], 8000))
    one = found.kinds["content"]
    assert (one.known_a, one.known_b, one.a, one.b, one.ids) == (5, 4, 2, 2, 2)
    facts = found.facts()
    assert facts["shared"] == [2, 2] and facts["not_compared"] == [0, 0]
    assert facts["lacking"] == {
        "freesound": "neither A nor B has one", "youtube": "neither A nor B has one",
    }  # fmt: skip


def test_sounds_of_other_rates_are_not_compared(tmp_path: Path) -> None:
    a = shards_of(tmp_path / "a", [("x", waves(1)[0], 8000)])
    b = shards_of(tmp_path / "b", [("y", waves(1)[0], 16000)])
    found = overlap(recordings_of_shards(a), recordings_of_shards(b))
    assert not found.compared and found.lone_a == found.lone_b == 1
    assert found.facts()["lacking"]["content"] == (
        "kept in other forms (Hz/channels): A 8000/1, B 16000/1"
    )


def test_files_are_heard_as_shards_keep_them(tmp_path: Path) -> None:
    """Raw stereo files at 44.1 kHz against shards that hold their first channel at 16 kHz."""
    raw = tmp_path / "raw"
    raw.mkdir()
    rng = np.random.default_rng(1)
    for name in ("rain", "wind", "sea"):
        noise = rng.uniform(-0.5, 0.5, (4410, 2))
        soundfile.write(raw / f"{name}.wav", noise, 44100, subtype="PCM_24")
    sounds = []
    for name in ("sea", "rain"):
        path = raw / f"{name}.wav"
        sound = load_sound(path, channel="first", sample_rate=16000, short=True)
        sounds.append((f"clip-{name}", sound.wave, sound.rate))
    settings = {"audio_rate": 16000, "channel": "first", "sound": "flac"}
    shards_of(tmp_path / "shards", sounds, settings=settings)
    for a, b in ((raw, tmp_path / "shards"), (tmp_path / "shards", raw)):
        rows = {(frozenset(row[:2]), row[2]) for row in overlap(a, b).rows()}
        assert rows == {
            (frozenset({"sea", "clip-sea"}), "content"),
            (frozenset({"rain", "clip-rain"}), "content"),
        }


def test_a_file_that_is_no_sound_is_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing")
    soundfile.write(tmp_path / "good.wav", waves(1)[0].T, 8000)
    found = recordings(tmp_path)
    assert found.ids["content"] == [None, hash_of(waves(1)[0], 8000)]
    assert "1 of 2 files hold no sound that can be read" in capsys.readouterr().err


# ---- counts ---------------------------------------------------------------------------------


def test_counts_by_hand(tmp_path: Path) -> None:
    """A knows 1 2 2 3 and not one; B knows 2 3 3 9: three clips of A, three of B, two ids."""
    a = ids_of(tmp_path, "a", [1, 2, 2, 3, "Not found"])
    b = ids_of(tmp_path, "b", [2, 3, 3, 9])
    found = overlap(a, b)
    assert list(found.rows()) == [
        ("a1", "b0", "freesound"), ("a2", "b0", "freesound"), ("a3", "b1", "freesound"),
    ]  # fmt: skip
    one = found.kinds["freesound"]
    assert (one.known_a, one.known_b, one.a, one.b, one.ids) == (4, 4, 3, 3, 2)
    assert (found.lone_a, found.lone_b) == (1, 0)
    back = overlap(b, a)
    assert (back.kinds["freesound"].a, back.kinds["freesound"].b) == (3, 3)


def test_random_ids_against_sets(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    a, b = rng.integers(1, 400, 300), rng.integers(200, 600, 250)
    found = overlap(ids_of(tmp_path, "a", a), ids_of(tmp_path, "b", b))
    both = set(a.tolist()) & set(b.tolist())
    one = found.kinds["freesound"]
    assert one.a == sum(i in both for i in a.tolist()) > 50
    assert one.b == sum(i in both for i in b.tolist()) and one.ids == len(both)
    by_b = dict(zip(found.b.names, b.tolist(), strict=True))
    by_a = dict(zip(found.a.names, a.tolist(), strict=True))
    assert all(by_a[x] == by_b[y] for x, y, _ in found.rows())


def test_several_kinds_add_up(tmp_path: Path) -> None:
    sounds = waves(4)
    free_a, tube_a = ["1", None, None, "8"], [None, YOUTUBE[0], None, None]
    free_b, tube_b = ["1", None, None, "9"], [None, YOUTUBE[0], None, None]
    a = [(f"a{i}", sounds[i], 8000) for i in range(4)]
    b = [("b0", sounds[0], 8000), ("b1", waves(1, 50)[0], 8000), ("b2", sounds[2], 8000),
         ("b3", waves(1, 51)[0], 8000)]  # fmt: skip
    shards_of(tmp_path / "a", a, freesound=free_a, youtube=tube_a)
    shards_of(tmp_path / "b", b, freesound=free_b, youtube=tube_b)
    found = overlap(tmp_path / "a", tmp_path / "b")
    assert list(found.rows()) == [
        ("a0", "b0", "freesound content"), ("a1", "b1", "youtube"), ("a2", "b2", "content"),
    ]  # fmt: skip
    assert {kind: one.a for kind, one in found.kinds.items()} == {
        "freesound": 1, "youtube": 1, "content": 2,
    }  # fmt: skip


def test_a_name_counts_where_nothing_tells_two_clips_apart(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.txt", "rain.wav\nwind.wav\n")
    other = write(tmp_path / "other.csv", "id,freesound_id\nfold1/rain,5\nsea,6\n")
    found = overlap(plain, other)
    assert list(found.rows()) == [("rain.wav", "fold1/rain", "name")]
    assert (found.lone_a, found.lone_b) == (1, 1)
    same = ids_of(tmp_path, "c", [1, 2])
    (tmp_path / "more").mkdir()
    differs = ids_of(tmp_path / "more", "c", [1, 7])  # c1 is another recording there
    assert list(overlap(same, differs).rows()) == [("c0", "c0", "freesound")]
    sounds = [("x", waves(1)[0], 8000)], [("x", waves(1, 5)[0], 8000)]
    shards_of(tmp_path / "s", sounds[0])
    shards_of(tmp_path / "t", sounds[1])
    found = overlap(tmp_path / "s", tmp_path / "t")
    assert found.compared and not found.of_a.any()
    folders = [write(tmp_path / f"{n}.txt", f"{n}/1.wav\n") for n in ("train", "test")]
    assert not overlap(*folders).compared  # train/1 is not test/1


# ---- the command ----------------------------------------------------------------------------


def test_the_command_says_what_it_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a = ids_of(tmp_path, "a", [1, 2, 2, "Not found"])
    b = ids_of(tmp_path, "b", [2, 9])
    out = tmp_path / "shared.csv"
    settings = CheckOverlap(a=str(a), b=str(b), out=str(out))
    assert overlap_command.run(settings) == 1
    lines = capsys.readouterr().out.splitlines()
    assert (
        "Freesound id (3 of A and 2 of B have one): 2 clips of A are in B, 1 of B in A, 1 different"
        in lines
    )
    assert "not compared by YouTube id: neither A nor B has one" in lines
    assert "not compared at all: 1 of 4 clips of A" in lines
    assert lines[-1] == "shared: 2 of 4 clips of A, 1 of 2 of B (2 by Freesound id)"
    with out.open(newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "other_id", "by"], ["a1", "b0", "freesound"], ["a2", "b0", "freesound"],
        ]  # fmt: skip
    about = json.loads((tmp_path / "shared.csv.about.json").read_text())
    assert about["shared"] == [2, 1] and about["settings"]["b"] == str(b)
    apart = ids_of(tmp_path, "d", [7])
    assert overlap_command.run(CheckOverlap(a=str(a), b=str(apart))) == 0


def test_nothing_to_compare_is_an_error(tmp_path: Path) -> None:
    """Freesound ids here, YouTube ids there: that is not "no overlap"."""
    a = ids_of(tmp_path, "a", [1, 2])
    b = write(tmp_path / "b.txt", "\n".join(YOUTUBE))
    out = tmp_path / "shared.csv"
    with pytest.raises(DataError, match="can be compared") as found:
        overlap_command.run(CheckOverlap(a=str(a), b=str(b), out=str(out)))
    text = str(found.value)
    assert "Freesound id: B has none; YouTube id: A has none" in text and "\n" not in text
    assert not out.exists()
    with pytest.raises(SettingsError, match=r"must end in \.csv"):
        overlap_command.run(CheckOverlap(a=str(a), b=str(a), out="shared.txt"))
    for path, why in (("none.csv", "does not exist"), ("no.txt", "empty"), ("x.csv", "no id")):
        (tmp_path / "no.txt").write_text("\n")
        (tmp_path / "x.csv").write_text("id,freesound_id\n,5\n")
        with pytest.raises(DataError, match=why):
            overlap_command.run(CheckOverlap(a=str(a), b=str(tmp_path / path)))


# ---- in training ----------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    """refuse_overlap of the first four clips of shards with six, c0 to c5."""
    sounds = [(f"c{i}", wave, 8000) for i, wave in enumerate(waves(6))]
    shards = shards_of(tmp_path / "train", sounds)

    def call(*held: object, allow: tuple[str, ...] = (), more: Any = ()) -> list[dict[str, Any]]:
        settings = FitSettings(out="x", held_out=tuple(map(str, held)), allow_overlap=allow)
        return refuse_overlap(shards, [3, 0, 1, 2, 1], settings, more)

    return call


def test_a_training_on_its_evaluation_set_stops(
    tmp_path: Path, trained: Callable[..., list[dict[str, Any]]]
) -> None:
    held = shards_of(tmp_path / "held", [("h0", waves(6)[2], 8000), ("h1", waves(1, 9)[0], 8000)])
    for given in ({"held": [held.path]}, {"held": [], "more": [held]}):
        with pytest.raises(DataError) as found:
            trained(*given["held"], more=given.get("more", ()))
        text = str(found.value)
        assert "1 of 4 training clips" in text and "(1 by sound; the first: 'c2')" in text
        assert f"--allow-overlap {held.path}" in text and "\n" not in text
    for name in (held.path, "held", f"{held.path}/"):
        (facts,) = trained(held.path, allow=(name,))
        assert facts["allowed"] and facts["shared"] == [1, 1] and facts["b"] == held.path
    with pytest.raises(SettingsError, match="--allow-overlap hold is no held-out set; there are:"):
        trained(held.path, allow=("hold",))
    with pytest.raises(SettingsError, match="there are: none"):
        trained(allow=("held",))
    apart = shards_of(tmp_path / "apart", [("h0", waves(1, 9)[0], 8000)])
    (facts,) = trained(apart.path)
    assert facts["shared"] == [0, 0] and not facts["allowed"] and facts["compared"]
    assert trained(more=[apart]) == [] == trained()  # results without held_out stay as they are


def test_held_out_lists_of_ids(
    tmp_path: Path,
    trained: Callable[..., list[dict[str, Any]]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Of these shards: by name. Of others, without any id in common: refused, not passed."""
    listed = write(tmp_path / "listed.txt", "c4\nc1\nc0\n")
    with pytest.raises(DataError, match=r"2 of 4 training clips .* \(2 by name alone; .*'c0'\)"):
        trained(listed)
    other = write(tmp_path / "other.txt", "c4\nc5\n")  # in the shards, and not trained on
    (facts,) = trained(other)
    assert facts["shared"] == [0, 0] and facts["compared"]
    assert capsys.readouterr().err == ""
    foreign = write(tmp_path / "foreign.txt", "\n".join(YOUTUBE))
    with pytest.raises(DataError, match="YouTube id: A has none"):
        trained(foreign)
    (facts,) = trained(foreign, allow=("foreign.txt",))
    assert not facts["compared"] and facts["allowed"]
    capsys.readouterr()
    slower = shards_of(tmp_path / "slower", [("h", waves(1, 9)[0], 4000)])
    assert trained(more=[slower]) == []
    assert "4 of 4 training clips could not be compared" in capsys.readouterr().err


def test_scaling_curve_and_classifier_look_at_their_test_sets(tmp_path: Path) -> None:
    toy.toy_model(tmp_path)
    toy.toy_shards(tmp_path / "shards", clips=12)
    toy.toy_shards(tmp_path / "test", clips=8, first=9)
    pairs = toy.write_gold(tmp_path / "gold.jsonl", range(11))
    common: dict[str, Any] = {
        "shards": str(tmp_path / "shards"), "test": str(tmp_path / "test"),
        "model": str(tmp_path / "model"), "out": str(tmp_path / "out"), "batch_size": 4,
        "device": "cpu",
    }  # fmt: skip
    with pytest.raises(DataError, match=r"2 of 11 training clips .* \(2 by sound"):
        scaling_curve(ScalingCurve(**common, pairs=str(pairs), seeds=(1,), sizes=(4, 8, 16)))
    with pytest.raises(DataError, match=r"3 of 12 training clips .* \(3 by sound"):
        train_classifier(TrainClassifier(**common))
    assert not (tmp_path / "out").exists()


# ---- what prepared clips keep ---------------------------------------------------------------


def test_a_list_that_tells_is_kept(tmp_path: Path) -> None:
    """Facts only where the list tells; without, plan and rows are what they were."""
    for name in ("a", "b", "c"):
        soundfile.write(tmp_path / f"{name}.wav", waves(1)[0].T, 8000)
    told = write(
        tmp_path / "told.csv",
        "path,freesound_id,youtube\na.wav,0012,\nb.wav,,https://youtu.be/7fmOlUlwoNg\nc.wav,,\n",
    )
    clips = read_clips(str(told), AUDIO)
    assert [(clip.freesound, clip.youtube) for clip in clips] == [
        ("12", None), (None, "7fmOlUlwoNg"), (None, None),
    ]  # fmt: skip
    rows = [clip_row(clip) for clip in clips]
    assert rows[0]["freesound"] == "12" and rows[1]["youtube"] == "7fmOlUlwoNg"
    assert not {"freesound", "youtube"} & rows[2].keys() and "youtube" not in rows[0]
    recipe = PrepareAudio(source=str(told), out="x").recipe()
    plain = read_clips(str(write(tmp_path / "plain.csv", "path\na.wav\nb.wav\nc.wav\n")), AUDIO)
    plans = [make_plan("prepare-audio", recipe, None, some) for some in (clips, plain)]
    assert plans[0].inputs != plans[1].inputs
    bare = [Clip(c.id, c.path, source=c.source) for c in clips]
    assert make_plan("prepare-audio", recipe, None, bare).inputs == plans[1].inputs
    with pytest.raises(Exception, match="line 2: freesound_id 'rain' is no such id"):
        read_clips(str(write(told, "path,freesound_id\na.wav,rain\n")), AUDIO)


def test_own_ids_keep_the_video(tmp_path: Path) -> None:
    """A clip whose id does not tell the video keeps it; AudioCaps' clips stay as they were."""
    (tmp_path / "media").mkdir()
    for video in YOUTUBE[:2]:
        soundfile.write(tmp_path / "media" / f"{video}_20_30.wav", waves(1)[0].T, 8000)
    one, other = YOUTUBE[:2]
    text = f"id,youtube_id,start,end\nmine,{one},20,30\n{other},{other},20,30\n"
    clips = read_clips(str(write(tmp_path / "l.csv", text)), AUDIO, media=str(tmp_path / "media"))
    assert [clip.youtube for clip in clips] == [YOUTUBE[0], None]


# ---- real lists -----------------------------------------------------------------------------


def test_real_lists(realdata: Path) -> None:
    """Against a second count with other means; ESC-50's 2,000 and UrbanSound8K's 8,732 clips."""
    esc, us8k = realdata / "labels/esc50/esc50_eval.csv", realdata / "labels/urbansound8k/us8k.csv"
    with esc.open(newline="") as file:
        a = [row["src_wav"].split("-")[1] for row in csv.DictReader(file)]
    with us8k.open(newline="") as file:
        b = [row["file_name"].split("/")[-1].split("-")[0] for row in csv.DictReader(file)]
    one = overlap(esc, us8k).kinds["freesound"]
    assert (one.known_a, one.known_b) == (2000, 8732) == (len(a), len(b))
    assert (one.a, one.b, one.ids) == (106, 474, 94)
    both = set(a) & set(b)
    assert (sum(i in both for i in a), sum(i in both for i in b), len(both)) == (106, 474, 94)
    first, second = (realdata / f"captions/audiocaps_v{v}/test.csv" for v in (1, 2))
    one = overlap(first, second).kinds["youtube"]
    assert (one.a, one.b) == (975, 975)
    found = overlap(realdata / "labels/vggsound/test.csv",
                    realdata / "labels/audioset/balanced_train_segments.csv")  # fmt: skip
    assert (found.kinds["youtube"].a, found.kinds["youtube"].b, found.lone_a) == (19, 18, 0)
    clotho = [realdata / f"captions/clotho_v2/{split}.csv" for split in ("train", "test")]
    assert not overlap(*clotho).kinds.keys() & {"freesound", "youtube", "content"}


def test_real_sounds_in_two_containers(realdata: Path, tmp_path: Path) -> None:
    """Real oggs, prepared as FLAC: found by content alone, whatever they are called."""
    folder = realdata / "audio/esc10/001-Dog_bark"
    sounds = []
    for number, path in enumerate(sorted(folder.glob("*.ogg"))[:5]):
        sound = load_sound(path, channel="first", sample_rate=16000, short=True)
        sounds.append((f"renamed {number}", sound.wave, sound.rate))
    settings = {"audio_rate": 16000, "channel": "first", "sound": "flac"}
    shards_of(tmp_path / "shards", sounds, settings=settings)
    found = overlap(tmp_path / "shards", folder)
    assert found.kinds["content"].a == 5 and found.kinds.keys() == {"content"}


def test_prepared_clotho_keeps_its_freesound_ids(tmp_path: Path) -> None:
    """In the clip's facts, where the metadata lie beside the captions."""
    for name in ("Rain", "Wind"):
        soundfile.write(tmp_path / f"{name}.wav", waves(1)[0].T, 8000)
    captions = "file_name,caption_1\nRain.wav,it rains\nWind.wav,it blows\n"
    write(tmp_path / "clotho_captions_evaluation.csv", captions)
    bare = read_clips(str(tmp_path), AUDIO)
    meta = "file_name,sound_id\nRain.wav,80399\nWind.wav,Not found\n"
    write(tmp_path / "clotho_metadata_evaluation.csv", meta)
    clips = read_clips(str(tmp_path), AUDIO)
    assert [clip.freesound for clip in clips] == ["80399", None]
    recipe = PrepareAudio(source="x", out="x").recipe()
    facts = []
    for clip in (clips[0], bare[0]):
        decoded = decode_sound(clip.path, None, None, recipe)
        facts.append(json.loads(members_of(clip_row(clip), decoded, recipe)["json"]))
    assert facts[0].pop("freesound") == "80399" and facts[0] == facts[1]
