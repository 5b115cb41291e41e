"""FSD50K, VGGSound, MACS and WavCaps as they are published, and lists of clips to leave out."""

import json
from pathlib import Path
from typing import Any

import pytest

from pivot import config
from pivot.data.benchmarks import read_labels
from pivot.data.captions import read_captions
from pivot.data.exclude import clips_without, numbers_without, pairs_without
from pivot.data.ids import read_ids
from pivot.data.overlap import overlap
from pivot.data.pairs import Pairs
from pivot.data.prepare_command import sounds
from pivot.data.recordings import recordings
from pivot.errors import DataError
from tests.test_datasets import sound, touch, write
from video_prep.errors import UserError
from video_prep.index import AUDIO, Clip, find_clips, read_clips
from video_prep.prepare import run_audio
from video_prep.settings import PrepareAudio
from video_prep.shards import ShardFolder
from video_prep.sources.official import data_set
from video_prep.sources.ontology import read_names

DEV = (
    "fname,labels,mids,split\n"
    '64760,"Electric_guitar,Music","/m/02sgy,/m/04rlf",train\n'
    '16399,"Chicken_and_rooster","/m/09b5t",val\n'
    '100,"Electric_guitar","/m/02sgy",train\n'
)
EVAL = 'fname,labels,mids\n37199,"Music","/m/04rlf"\n'
VOCABULARY = "0,Electric_guitar,/m/02sgy\n1,Chicken_and_rooster,/m/09b5t\n2,Music,/m/04rlf\n"
VGGSOUND = (
    '---g-f_I2yQ,1,"people marching",test\n'
    "--0PQM4-hqg,30,waterfall burbling,train\n"
    "--0PQM4-hqg,70,waterfall burbling,train\n"
)
MACS = """files:
- annotations:
  - annotator_id: 47
    sentence: A tram passes by.
    tags: [footsteps, tram]
  - annotator_id: 8
    sentence: "People: many of them."
    tags:
    - footsteps
    - adults_talking
  filename: airport-london-6-255-a.wav
- filename: park-paris-83-2497-a.wav
  annotations:
  - {annotator_id: 1, sentence: Birds., tags: []}
  - {annotator_id: 2, sentence: More birds., tags: [birds_singing]}
"""
FREESOUND = [
    {"id": "180913", "caption": "A door.", "href": "/people/a/sounds/180913/", "duration": 2.0,
     "download_link": "https://freesound.org/people/a/sounds/180913/", "audio": "wav_path"},
    {"id": "2219", "caption": "A dog.", "href": "/people/b/sounds/2219/", "duration": 1.0,
     "audio": "wav_path"},
]  # fmt: skip
AUDIOSET = [
    {"id": "Yb0RFKhbpFJA.wav", "caption": "Wind.", "audio": "wav_path", "duration": 10.0},
    {"id": "Y--4gqARaEJE.wav", "caption": "A cat.", "audio": "wav_path", "duration": 10.0},
]
SOUNDBIBLE = [{"id": "2219", "caption": "An airplane.", "href": "2219-Airplane.html",
               "download_link": "http://soundbible.com/grab.php?id=2219&type=wav"}]  # fmt: skip


def fsd50k(root: Path, dev: str = DEV) -> Path:
    table = write(root / "FSD50K.ground_truth/dev.csv", dev)
    write(root / "FSD50K.ground_truth/eval.csv", EVAL)
    write(root / "FSD50K.ground_truth/vocabulary.csv", VOCABULARY)
    touch(root / "FSD50K.dev_audio", "64760.wav", "16399.wav", "100.wav")
    touch(root / "FSD50K.eval_audio", "37199.wav")
    return table


def wavcaps(path: Path, data: list[dict[str, Any]]) -> Path:
    return write(path, json.dumps({"num_captions_per_audio": 1, "data": data}, indent=1))


def whole_wavcaps(root: Path) -> Path:
    """Three of the four sources with their sounds, as the archives are unpacked."""
    for name, data in (("FreeSound/fsd", FREESOUND), ("AudioSet_SL/as", AUDIOSET),
                       ("SoundBible/sb", SOUNDBIBLE)):  # fmt: skip
        wavcaps(root / f"json_files/{name}_final.json", data)
        files = (str(row["id"]).partition(".")[0] + ".flac" for row in data)
        touch(root / f"{name.partition('/')[0]}_flac", *files)
    return root / "json_files"


def told(clips: list[Clip]) -> list[tuple[Any, ...]]:
    return [(clip.id, clip.labels, clip.split, clip.freesound) for clip in clips]


def fails(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- FSD50K ----------------------------------------------------------------------------------


def test_fsd50k(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dev = fsd50k(tmp_path)
    found = find_clips(str(dev), AUDIO)
    assert told(found.clips) == [
        ("64760", ("Electric_guitar", "Music"), "train", "64760"),
        ("16399", ("Chicken_and_rooster",), "val", "16399"),
        ("100", ("Electric_guitar",), "train", "100"),
    ]
    assert [clip.path.parent.name for clip in found.clips] == ["FSD50K.dev_audio"] * 3
    assert found.dataset is not None
    assert found.dataset.facts() == {"name": "FSD50K", "split": "development", "official": 40966}
    said = capsys.readouterr().err
    assert said == f"{dev} lists 3 clips; FSD50K development has 40,966\n"  # none of eval is extra
    test = find_clips(str(dev.with_name("eval.csv")), AUDIO)
    assert told(test.clips) == [("37199", ("Music",), "test", "37199")]
    assert test.dataset == data_set("FSD50K", Path("eval.csv")) and test.dataset.official == 10231
    assert "holds several tables of clips" in fails(find_clips, str(tmp_path), AUDIO)
    elsewhere = read_clips(str(dev), AUDIO, media=str(tmp_path / "FSD50K.dev_audio"))
    assert told(elsewhere) == told(found.clips)


def test_fsd50k_with_audiosets_names(tmp_path: Path) -> None:
    """As the label list of LAION-CLAP has them: Chicken, rooster."""
    ontology = [{"id": "/m/02sgy", "name": "Electric guitar"}, {"id": "/m/04rlf", "name": "Music"},
                {"id": "/m/09b5t", "name": "Chicken, rooster"}]  # fmt: skip
    names = write(tmp_path / "ontology.json", json.dumps(ontology))
    clips = read_clips(str(fsd50k(tmp_path)), AUDIO, ontology=str(names))
    assert [clip.labels for clip in clips] == [
        ("Electric guitar", "Music"), ("Chicken, rooster",), ("Electric guitar",)
    ]  # fmt: skip
    names.write_text(json.dumps(ontology[:1]))
    assert "label '/m/04rlf' is not in" in fails(
        read_clips, str(tmp_path / "FSD50K.ground_truth/dev.csv"), AUDIO, ontology=str(names)
    )


def test_fsd50k_has_the_classes_of_laions_list(realdata: Path, tmp_path: Path) -> None:
    """Named by AudioSet's ontology: all 200 of the list are names of it."""
    labels = realdata / "labels"
    classes = read_labels(labels / "laion_clap/FSD50k_class_labels_indices.json")
    names = read_names(labels / "audioset/ontology.json")
    assert len(classes) == 200 and set(classes) <= set(names.values())
    ontology = str(labels / "audioset/ontology.json")
    clips = read_clips(str(fsd50k(tmp_path)), AUDIO, ontology=ontology)
    assert clips[1].labels == ("Chicken, rooster",)
    assert {label for clip in clips for label in clip.labels} <= set(classes)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("16399,", "a b,", "line 3: fname 'a b' is not a Freesound id such as 64760"),
        ("16399,", ",", "line 3: fname is empty"),
        (',"/m/02sgy,/m/04rlf"', ',"/m/02sgy"', "line 2: 2 labels of 64760, but 1 mids"),
        ("Chicken_and_rooster", "Hen", r"line 3: label 'Hen' \(/m/09b5t\) of 16399 is not in voc"),
        (",val", ",dev", "line 3: split 'dev' of 16399 is not one of train, val"),
        ("100,", "64760,", "clips 1 and 3 have the same id '64760'"),
        ("64760,", "64760,x,", "line 2: 5 cells for 4 columns"),
    ],
)
def test_wrong_fsd50k(tmp_path: Path, old: str, new: str, message: str) -> None:
    table = fsd50k(tmp_path, DEV.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_clips(str(table), AUDIO)


def test_fsd50k_is_prepared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels, split and Freesound id go into the shards; a missing sound is a row with a reason."""
    table = fsd50k(tmp_path / "set")
    for name in ("64760", "16399"):
        sound(tmp_path / f"set/FSD50K.dev_audio/{name}.wav")
    (tmp_path / "set/FSD50K.dev_audio/100.wav").unlink()
    settings = PrepareAudio(source=str(table), out=str(tmp_path / "out"), workers=1)
    assert run_audio(settings) == 0
    shards = ShardFolder(tmp_path / "out")
    facts = list(shards.all_facts())
    assert [(one["id"], one["labels"], one["split"], one["freesound"]) for one in facts] == [
        ("64760", ["Electric_guitar", "Music"], "train", "64760"),
        ("16399", ["Chicken_and_rooster"], "val", "16399"),
    ]
    assert shards.dataset is not None and shards.dataset["present"] == 2
    assert "1 of 3 clips have no file in" in capsys.readouterr().err
    assert run_audio(settings) == 0  # the same plan again


# ---- VGGSound --------------------------------------------------------------------------------


def test_vggsound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "vggsound.csv", VGGSOUND)
    touch(tmp_path / "sounds", "---g-f_I2yQ_000001.wav", "--0PQM4-hqg_000030.wav")
    found = find_clips(str(table), AUDIO, media=str(tmp_path / "sounds"))
    assert told(found.clips) == [
        ("---g-f_I2yQ_000001", ("people marching",), "test", None),
        ("--0PQM4-hqg_000030", ("waterfall burbling",), "train", None),
        ("--0PQM4-hqg_000070", ("waterfall burbling",), "train", None),
    ]
    assert found.clips[2].fault is not None
    assert found.dataset is not None and found.dataset.official == 199176
    assert capsys.readouterr().err.splitlines() == [
        f"1 of 3 clips have no file in {(tmp_path / 'sounds').absolute()} "
        "(the first: --0PQM4-hqg_000070)",
        f"{table} lists 3 clips; VGGSound has 199,176",
    ]
    write(table, VGGSOUND + "--0PQM4-hqg,90,waterfall burbling,valid\n")
    said = fails(find_clips, str(table), AUDIO, media=str(tmp_path / "sounds"))
    assert "line 4: split 'valid' is not one of train, test" in said


def test_vggsounds_test_list_is_whole(realdata: Path, tmp_path: Path) -> None:
    touch(tmp_path, "glLQrEijrKg_000300.wav")
    found = find_clips(str(realdata / "labels/vggsound/test.csv"), AUDIO, media=str(tmp_path))
    assert found.dataset is not None and found.dataset.split == "test"
    assert len(found.clips) == found.dataset.official == 15446
    assert sum(clip.fault is None for clip in found.clips) == 1


# ---- MACS ------------------------------------------------------------------------------------


def test_macs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = write(tmp_path / "MACS.yaml", MACS)
    names = "airport-london-6-255-a.wav", "park-paris-83-2497-a.wav", "bus-lyon-1-1-a.wav"
    touch(tmp_path / "TAU-urban-acoustic-scenes-2019-development/audio", *names)
    found = find_clips(str(tmp_path), AUDIO)
    assert told(found.clips) == [
        ("airport-london-6-255-a", ("footsteps", "tram", "adults_talking"), None, None),
        ("park-paris-83-2497-a", ("birds_singing",), None, None),
    ]
    assert found.clips[0].captions == ("A tram passes by.", "People: many of them.")
    assert found.dataset is not None
    assert found.dataset.facts() == {"name": "MACS", "split": None, "official": 3930}
    assert "left out: 1 (the first: TAU-urban-acoustic-scenes-2019-development/audio/bus" in (
        capsys.readouterr().err
    )
    captions = read_captions(table)
    assert [(c.clip, c.text) for c in captions[:2]] == [
        ("airport-london-6-255-a.wav", "A tram passes by."),
        ("airport-london-6-255-a.wav", "People: many of them."),
    ]
    assert recordings(table).names == ["airport-london-6-255-a.wav", "park-paris-83-2497-a.wav"]
    shared = overlap(table, write(tmp_path / "list.txt", "park-paris-83-2497-a\n"))
    assert [row[0] for row in shared.rows()] == ["park-paris-83-2497-a.wav"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  filename: airport-london-6-255-a.wav\n", "", "entry 1 has no filename"),
        ("    sentence: A tram passes by.\n", "", "entry 1: an annotation of air.* has no sent"),
        ("tags: [birds_singing]", "tags: birds", "entry 2: tags 'birds' of park.* are not a list"),
        ("  annotations:\n  - {annotator_id: 1", "  noted:\n  - {annotator_id: 1",
         "entry 2: park-paris-83-2497-a.wav has no annotations"),
        ("tram]", "tram", r"MACS\.yaml is not YAML"),
        ("park-paris-83-2497-a", "airport-london-6-255-a", "clips 1 and 2 have the same id"),
    ],
)  # fmt: skip
def test_wrong_macs(tmp_path: Path, old: str, new: str, message: str) -> None:
    table = write(tmp_path / "MACS.yaml", MACS.replace(old, new))
    touch(tmp_path, "airport-london-6-255-a.wav")
    with pytest.raises(UserError, match=message) as caught:
        read_clips(str(table), AUDIO)
    assert "\n" not in str(caught.value)
    assert "holds no list `files`" in fails(
        read_clips, str(write(table, "files:\n  a: 1\n")), AUDIO
    )


# ---- WavCaps ---------------------------------------------------------------------------------


def test_wavcaps(tmp_path: Path) -> None:
    lists = whole_wavcaps(tmp_path)
    found = find_clips(str(lists / "FreeSound/fsd_final.json"), AUDIO)
    assert [(c.id, c.captions, c.freesound, c.source) for c in found.clips] == [
        ("180913", ("A door.",), "180913", "FreeSound_flac/180913.flac"),
        ("2219", ("A dog.",), "2219", "FreeSound_flac/2219.flac"),
    ]
    assert found.dataset is not None
    assert found.dataset.facts() == {"name": "WavCaps", "split": "FreeSound", "official": 262300}
    other = find_clips(str(lists / "SoundBible/sb_final.json"), AUDIO)
    assert [(c.id, c.freesound, c.source) for c in other.clips] == [
        ("2219", None, "SoundBible_flac/2219.flac")
    ]
    videos = find_clips(str(lists / "AudioSet_SL/as_final.json"), AUDIO)
    assert [(c.id, c.youtube) for c in videos.clips] == [
        ("Yb0RFKhbpFJA", "b0RFKhbpFJA"), ("Y--4gqARaEJE", "--4gqARaEJE")
    ]  # fmt: skip
    assert "holds several tables of clips" in fails(find_clips, str(tmp_path), AUDIO)
    captions = read_captions(lists / "SoundBible/sb_final.json")
    assert [(c.clip, c.text) for c in captions] == [("2219", "An airplane.")]


def test_all_of_wavcaps() -> None:
    sizes = [data_set("WavCaps", Path(f"{name}_final.json")).official
             for name in ("as", "bbc", "fsd", "sb")]  # fmt: skip
    assert sum(filter(None, sizes)) == 403050  # Table 1 of the paper


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"num_captions_per_audio": 1, "data": [{"id": "1"}]}', "entry 1: 1 has no caption"),
        ('{"num_captions_per_audio": 1, "data": [{"caption": "a"}]}', "entry 1 has no id"),
        ('{"num_captions_per_audio": 1, "data": [5]}', "entry 1 has no id"),
        ('{"num_captions_per_audio": 1, "data": 5}', "holds no list `data` of clips"),
        ('{"num_captions_per_audio": 1, "data": [', r"fsd_final\.json is not JSON"),
        ('{"num_captions_per_audio": 1, "data": []}', "lists no clips"),
    ],
)
def test_wrong_wavcaps(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_clips(str(write(tmp_path / "fsd_final.json", text)), AUDIO)
    assert "\n" not in str(caught.value)


# ---- what is left out ------------------------------------------------------------------------


def test_wavcaps_exclusion_lists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists = whole_wavcaps(tmp_path)
    black = {"AudioSet": ["Y--4gqARaEJE.wav", "YnotThereAAA.wav"], "FreeSound": ["2219"]}
    path = write(lists / "blacklist/blacklist_exclude_all_ac.json", json.dumps(black))
    assert read_ids(path) == ["Y--4gqARaEJE.wav", "YnotThereAAA.wav", "2219"]
    left = {}
    for name in ("FreeSound/fsd", "AudioSet_SL/as"):
        clips = read_clips(str(lists / f"{name}_final.json"), AUDIO)
        left[name] = [clip.id for clip in clips_without(name, clips, [str(path)])]
    assert left == {"FreeSound/fsd": ["180913"], "AudioSet_SL/as": ["Yb0RFKhbpFJA"]}
    said = capsys.readouterr().err
    assert f"--exclude {path}: 1 of 2 clips of FreeSound/fsd are in it (1 by Freesound id)" in said
    assert f"--exclude {path}: 1 of 2 clips of AudioSet_SL/as are in it (1 by YouTube id)" in said
    clips = read_clips(str(lists / "SoundBible/sb_final.json"), AUDIO)
    with pytest.raises(DataError, match=r"nothing of sb .* can be compared"):  # 2219 is another's
        clips_without("sb", clips, [str(path)])
    with pytest.raises(DataError, match="--exclude leaves no clip of fsd"):
        every = write(tmp_path / "ids.txt", "180913\n2219\n")
        clips = read_clips(str(lists / "FreeSound/fsd_final.json"), AUDIO)
        clips_without("fsd", clips, [str(every)])


def test_prepare_leaves_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the Freesound ids of another set's table; a plan with lists is another plan."""
    table = fsd50k(tmp_path / "set")
    for name in ("64760", "16399", "100"):
        sound(tmp_path / f"set/FSD50K.dev_audio/{name}.wav")
    esc50 = write(tmp_path / "esc50.csv",
                  "filename,fold,target,category,esc10,src_file,take\n"
                  "1-16399-A-0.wav,1,0,dog,True,16399,A\n")  # fmt: skip
    out = tmp_path / "out"
    argv = [str(table), "--out", str(out), "--exclude", str(esc50), "--workers", "1"]
    settings = config.load(PrepareAudio, argv, "pivot prepare-audio")
    assert sounds(settings) == 0
    assert ShardFolder(out).ids == ["64760", "100"]
    assert "1 of 3 clips of" in capsys.readouterr().err
    assert sounds(settings.model_copy(update={"shards": "0:1"})) == 0  # on the saved plan
    assert "clips of" not in capsys.readouterr().err
    other = settings.model_copy(update={"exclude": ()})
    assert "was begun with 2 input clips, not 3" in fails(sounds, other)
    assert "use pivot prepare-audio" in fails(run_audio, settings)


def test_trainings_leave_out(tmp_path: Path) -> None:
    table = fsd50k(tmp_path / "set")
    for name in ("64760", "16399", "100"):
        sound(tmp_path / f"set/FSD50K.dev_audio/{name}.wav")
    run_audio(PrepareAudio(source=str(table), out=str(tmp_path / "out"), workers=1))
    shards = ShardFolder(tmp_path / "out")
    own = write(tmp_path / "excluded.csv", "id\n100\n")
    lists = [f"freesound:{own}"]
    assert numbers_without(shards, [2, 0, 1, 2], lists) == [0, 1]
    assert numbers_without(shards, [2, 0], []) == [2, 0]
    pairs = Pairs(["100", "64760", "100"], ["a", "b", "c"], [1, 2, 3], {"rule": "gold"})
    left = pairs_without(pairs, shards, lists)
    assert (left.audio_ids, left.captions, left.scores) == (["64760"], ["b"], [2])
    assert left.meta == {"rule": "gold"} and pairs_without(pairs, shards, []) is pairs
