"""Captions, labels, prompts, pairs: the field's own files unedited, every wrong one named."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pivot.data.benchmarks import read_labels, unique_labels
from pivot.data.captions import (
    Caption,
    by_clip,
    clip_numbers,
    find_clips,
    fold,
    read_captions,
)
from pivot.data.pairs import Pair, read_pairs, write_pairs
from pivot.data.prompts import apply
from pivot.errors import DataError, SettingsError, UserError


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


# ---- real files ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, count, clips",
    [
        ("audiocaps_v1/train.csv", 49838, 49838),
        ("audiocaps_v1/val.csv", 2475, 495),
        ("audiocaps_v1/test.csv", 4875, 975),
        ("audiocaps_v2/val.csv", 2475, 495),
        ("audiocaps_v2/test.csv", 4875, 975),
        ("clotho_v2/train.csv", 3839 * 5, 3839),
        ("clotho_v2/val.csv", 1045 * 5, 1045),
        ("clotho_v2/test.csv", 1045 * 5, 1045),
        ("coco_val2017/captions_val2017.json", 25014, 5000),
    ],
)
def test_real_captions_read_unedited(realdata: Path, name: str, count: int, clips: int) -> None:
    captions = read_captions(realdata / "captions" / name)
    assert len(captions) == count == len({caption.id for caption in captions})
    assert len(by_clip(captions)) == clips
    assert all(caption.text == caption.text.strip() != "" for caption in captions)


@pytest.mark.parametrize(
    "name, count, first, last",
    [
        ("esc50/esc50_eval.csv", 50, "dog", None),
        ("esc50/esc_class_labels_indices.csv", 50, "dog", "hand saw"),
        ("urbansound8k/us8k.csv", 10, "dog bark", None),
        ("audioset/class_labels_indices.csv", 527, "Speech", "Field recording"),
        ("audioset/ontology.json", 632, "Human sounds", None),
        ("vggsound/stat.csv", 309, "ambulance siren", None),
        ("vggsound/test.csv", 309, "playing hammond organ", None),
        ("vggsound/vgg-test.tsv", 309, "people marching", None),
        ("laion_clap/ESC50_class_labels_indices.json", 50, "dog", "hand saw"),
        ("laion_clap/ESC50_class_labels_indices_space.json", 50, "dog", "hand saw"),
        ("laion_clap/FSD50k_class_labels_indices.json", 200, "Whispering", None),
        ("laion_clap/GTZAN_class_labels.json", 10, "blues", "rock"),
        ("laion_clap/UrbanSound8K_class_labels_indices.json", 10, "air conditioner", None),
        ("laion_clap/VGGSound_class_labels_indices.json", 309, "people crowd", None),
        ("laion_clap/audioset_class_labels_indices.json", 527, "Speech", "Field recording"),
        ("laion_clap/audioset_fsd50k_class_labels_indices.json", 535, "Speech", None),
    ],
)
def test_real_labels_read_unedited(
    realdata: Path, name: str, count: int, first: str, last: str | None
) -> None:
    labels = read_labels(realdata / "labels" / name)
    assert len(labels) == count and labels[0] == first
    assert last is None or labels[-1] == last
    assert not any("_" in label for label in labels)


@pytest.mark.parametrize(
    "name",
    [
        "captions/audiocaps_v1/test.csv",
        "captions/clotho_v2/test.csv",
        "captions/coco_val2017/captions_val2017.json",
        "labels/audioset/eval_segments.csv",
        "labels/audiocaps_eval_ids/audiocaps_eval.csv",
    ],
)
def test_real_files_that_are_no_label_lists_are_refused(realdata: Path, name: str) -> None:
    with pytest.raises(DataError, match=Path(name).name):
        read_labels(realdata / name)


# ---- made-up files ---------------------------------------------------------------------------


def test_caption_layouts(tmp_path: Path) -> None:
    text = write(tmp_path, "a.txt", "\ufeffa bell rings\n\n  rain   falls \r\n")
    assert read_captions(text) == [Caption("0", "a bell rings"), Caption("1", "rain falls")]
    rows = write(tmp_path, "b.csv", 'id,caption\n-x_1,"rain, wind"\n-x_1,wind\ny,"say ""hi"""\n')
    assert [(c.id, c.clip, c.text) for c in read_captions(rows)] == [
        ("-x_1#0", "-x_1", "rain, wind"),
        ("-x_1#1", "-x_1", "wind"),
        ("y#0", "y", 'say "hi"'),
    ]
    lines = write(tmp_path, "c.jsonl", '{"id": "x", "captions": ["a", "b"]}\n"c"\n')
    assert [(c.clip, c.text) for c in read_captions(lines)] == [("x", "a"), ("x", "b"), (None, "c")]
    table = write(tmp_path, "d.json", json.dumps({"x": ["a", "b"], "y": "c"}))
    assert [(c.clip, c.text) for c in read_captions(table)] == [("x", "a"), ("x", "b"), ("y", "c")]
    tabs = write(tmp_path, "e.tsv", 'id\tcaption\nx\ta "quoted, thing\n')
    assert read_captions(tabs)[0].text == 'a "quoted, thing'
    single = write(tmp_path, "f.csv", "a dog barks\nrain\n")
    assert len(read_captions(single)) == 2


def test_line_ends_comments_and_utf16(tmp_path: Path) -> None:
    lines = write(tmp_path, "a.txt", "one\u2028line\rtwo\r\n\x0bthree\n")
    assert [c.text for c in read_captions(lines)] == ["one line", "two", "three"]
    table = write(tmp_path, "a.csv", '# a note\nid,caption\n#1 hit,"of the\ryear"\n')
    assert read_captions(table) == [Caption("#1 hit#0", "of the year", "#1 hit")]
    text = "id,caption\nx,café\n"
    for name in ("utf-16", "utf-8-sig"):  # as spreadsheets save it
        assert read_captions(write(tmp_path, "b.csv", text.encode(name)))[0].text == "café"
    with pytest.raises(DataError, match="UTF-16 without its mark"):
        read_captions(write(tmp_path, "b.csv", b"i\0d\0"))


def test_a_folder_of_caption_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pool").mkdir()
    write(tmp_path / "pool", "b.csv", "caption_id,caption\n7,rain\n")
    write(tmp_path / "pool", "a.csv", "caption_id,id,caption\n8,x,wind\n")
    write(tmp_path / "pool", "notes.md", "no captions")
    assert read_captions(tmp_path / "pool") == [Caption("8", "wind", "x"), Caption("7", "rain")]
    assert "1 of a.csv, 1 of b.csv" in capsys.readouterr().err
    write(tmp_path / "pool", "c.csv", "caption_id,caption\n7,hail\n")
    assert [c.id for c in read_captions(tmp_path / "pool")] == ["a.csv:8", "b.csv:7", "c.csv:7"]


def test_empty_captions_are_named_or_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", "id,caption\nx,rain\ny,  \n")
    with pytest.raises(DataError, match="row 3: empty caption"):
        read_captions(path)
    skipped: list[str] = []
    assert len(read_captions(path, skipped)) == 1 and "row 3" in skipped[0]


def test_fold_keeps_the_first_and_clips_are_found_without_suffix() -> None:
    captions = [Caption("0", "a", "x.wav"), Caption("1", "b", "y.z"), Caption("2", "a", None)]
    assert [c.id for c in fold(captions)] == ["0", "1"]
    assert clip_numbers(captions, ["y.z", "x"]) == [1, 0, None]


def test_clips_are_found_but_for_a_suffix_on_either_side() -> None:
    ids = ["rain.wav", "x", "wind.wav", "wind.mp3", "part.01", "part.02"]
    names = ["rain", "x.flac", "wind", "wind.mp3", "part.03", "part", None, "X"]
    assert find_clips(names, ids) == [0, 1, None, 3, None, None, None, None]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.txt", "", "is empty"),
        ("a.txt", " \n ", "is empty"),
        ("a.txt", b"\xe9t\xe9", "not UTF-8"),
        ("a.txt", b"\xff\xfea", "not UTF-16"),
        ("a.txt", b"ab\x00c", "binary"),
        ("a.csv", "id,sound\nx,y\n", "no caption column"),
        ("a.csv", "id,caption\nx\n", "row 2 has 1 cells"),
        ("a.csv", "id,caption\nx,rain, wind\n", "row 2 has 3 cells instead of 2; a text with a"),
        ("a.csv", 'id,caption\nx,"open\n', "not a CSV"),
        ("a.csv", "caption_id,caption\n1,a\n1,b\n", "id 1 stands twice"),
        ("a.csv", "id,caption\n", "holds no caption"),
        ("a.json", "{", "not JSON"),
        ("a.json", "3", "holds one value"),
        ("a.json", '{"x": "a", "x": "b"}', "'x' stands twice"),
        ("a.json", "[" * 100000, "too many brackets"),
        ("a_map.csv", '[0, "rain"]\n[0, "wind"]\n', "id 0 stands twice"),
        ("a.json", '{"annotations": [{"bbox": 1}]}', "annotation 0"),
        ("a.jsonl", '{"id": "x"}\n', "line 1 has no `caption`"),
        ("a.jsonl", "[1]\n", "neither"),
        ("a.jsonl", '{"caption": 3}\n', "not text"),
        ("a.jsonl", "{\n", "line 1 is not JSON"),
        ("a.mp3", "x", "captions are read from"),
    ],
)
def test_bad_caption_files(tmp_path: Path, name: str, content: str | bytes, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_captions(write(tmp_path, name, content))


def test_missing_and_wrong_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_captions(tmp_path / "none.csv")
    with pytest.raises(UserError, match="manifest"):
        read_captions(tmp_path)  # a folder that is no shards
    with pytest.raises(DataError, match="is a folder"):
        read_labels(tmp_path)


def test_label_layouts(tmp_path: Path) -> None:
    assert read_labels(write(tmp_path, "a.txt", "Dog_bark\nrain\n\ndog bark\n")) == [
        "Dog bark",
        "rain",
    ]
    esc = "filename,fold,target,category\na.wav,1,1,sea_waves\nb.wav,1,0,dog\nc.wav,2,1,sea_waves\n"
    assert read_labels(write(tmp_path, "esc.csv", esc)) == ["dog", "sea waves"]
    assert read_labels(write(tmp_path, "b.json", '{"1": "b", "0": "a"}')) == ["a", "b"]
    assert read_labels(write(tmp_path, "c.json", '["b", {"name": "a"}]')) == ["b", "a"]
    assert read_labels(write(tmp_path, "d.jsonl", '"b"\n{"label": "a"}\n')) == ["b", "a"]
    assert unique_labels([" ", "a_b", "A b"]) == ["a b"]


@pytest.mark.parametrize(
    "name, content, words",
    [
        ("a.txt", "", "is empty"),
        ("a.csv", "file,fold\nx,1.0\n", "no label column"),
        ("a.csv", "id,label\nx\n", "label is missing"),
        ("a.csv", "id,label\nx,\n", "holds no label"),
        ("a.json", '{"a": [1]}', "labels are a list"),
        ("a.json", "[1]", "entry 1 has no name"),
    ],
)
def test_bad_label_files(tmp_path: Path, name: str, content: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_labels(write(tmp_path, name, content))


def test_prompts() -> None:
    assert apply("", "rain") == "rain"
    assert apply("the sound of", "rain") == "the sound of rain"
    assert apply("a {} heard", "rain") == "a rain heard"
    for wrong in ("{} and {}", "{x}", "}", "{"):
        with pytest.raises(SettingsError, match="braces"):
            apply(wrong, "rain")


# ---- pairs -----------------------------------------------------------------------------------


def test_pairs_come_back_with_their_settings(tmp_path: Path) -> None:
    rows = [Pair("x", "c1", "rain", 0.25, "pivot"), Pair("y", "c2", "wind")]
    path = tmp_path / "pairs.parquet"
    assert write_pairs(path, iter(rows), {"rule": "pivot", "k": 3}) == 2
    pairs = read_pairs(path)
    assert pairs.audio_ids == ["x", "y"] and pairs.captions == ["rain", "wind"]
    assert pairs.caption_ids == ["c1", "c2"] and pairs.meta == {"rule": "pivot", "k": 3}
    assert pairs.scores[0] == 0.25 and math.isnan(pairs.scores[1]) and len(pairs) == 2
    assert pq.read_table(path).column_names == [
        "audio_id", "caption_id", "caption", "score", "rule",
    ]  # fmt: skip


def test_pairs_of_text_files(tmp_path: Path) -> None:
    pairs = read_pairs(write(tmp_path, "a.csv", "id,caption\nx,rain\nx,wind\n"))
    assert pairs.audio_ids == ["x", "x"] and pairs.meta["rule"] == "gold"
    with pytest.raises(DataError, match="clip of each caption"):
        read_pairs(write(tmp_path, "a.txt", "rain\n"))


def test_no_pair_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pair to write"):
        write_pairs(tmp_path / "p.parquet", [], {})
    assert not list(tmp_path.iterdir())


def test_bad_pairs_files(tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    with pytest.raises(DataError, match="does not exist"):
        read_pairs(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not a readable Parquet"):
        read_pairs(path)
    pq.write_table(pa.table({"audio_id": ["x"]}), path)
    with pytest.raises(DataError, match="no column caption"):
        read_pairs(path)
    pq.write_table(pa.table({"audio_id": ["x", "y"], "caption": ["a", None]}), path)
    with pytest.raises(DataError, match="pair 1 lacks"):
        read_pairs(path)
    pq.write_table(pa.table({"audio_id": pa.array([], pa.string()), "caption": []}), path)
    with pytest.raises(DataError, match="holds no pair"):
        read_pairs(path)
