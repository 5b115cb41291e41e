"""Pairs files: layouts by hand, exact round trips, `pivot pairs`, every wrong file named."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pivot.data.about import about_of
from pivot.data.captions import read_captions
from pivot.data.pair_lists import clip_of, frame_name
from pivot.data.pairs import Pair, read_meta, read_pairs, stream_pairs, write_pairs
from pivot.errors import DataError, SettingsError, UserError
from pivot.mining import convert
from pivot.settings import ConvertPairs

# As the authors describe their files: four frames a clip, number ids, a map with more than is used.
CAP = """\
["---1_cCGK4M.p0.4_01", [3, 10, 0]]
["---1_cCGK4M.p0.4_02", [10, 7, 3]]
["---2_BBVHAA.p0.4_01", [7]]
["---1_cCGK4M.p0.4_03", [2]]
"""
MAP = """\
[0, "Man doing a skateboard trick in front of a crowd."]
[2, "a \\"quoted\\", caf\\u00e9"]
[3, "a man skating on a wire"]
[7, "two dogs run"]
[10, "rain"]
[11, "never chosen"]
"""
TEXTS = {
    "0": "Man doing a skateboard trick in front of a crowd.",
    "2": 'a "quoted", café',
    "3": "a man skating on a wire",
    "7": "two dogs run",
    "10": "rain",
}
FIRST, SECOND = "---1_cCGK4M", "---2_BBVHAA"
UNION = [(FIRST, "3"), (FIRST, "10"), (FIRST, "0"), (FIRST, "7"), (FIRST, "2"), (SECOND, "7")]

ODD = [
    Pair("x,y", "c 1", ' leading, "quoted" ', 0.1, "pivot"),
    Pair("#1 hit", "7", "two\nlines\r\nand\ta tab", -1.0, "pivot"),
    Pair("x,y", "7\u2028", "naïve \u2028 line \x85", float(np.float32(1 / 3)), "pivot"),
    Pair("z", "007", "[1, 2]", math.nan, "gold"),
]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """X_cap.csv with X_map.csv beside it."""
    (tmp_path / "X_map.csv").write_text(MAP)
    (tmp_path / "X_cap.csv").write_text(CAP)
    return tmp_path / "X_cap.csv"


def rows(path: Path, captions: str | None = None) -> list[Pair]:
    return list(stream_pairs(path, captions))


def same(found: list[Pair], expected: list[Pair]) -> bool:
    """Equal in every column; the scores as float32, NaN like NaN."""
    a, b = (np.array([pair.score for pair in part], np.float32) for part in (found, expected))
    texts = [[pair[:3] + pair[4:] for pair in part] for part in (found, expected)]
    return texts[0] == texts[1] and np.array_equal(a, b, equal_nan=True)


# ---- the authors' files ----------------------------------------------------------------------


def test_the_authors_lists_are_united_over_the_frames_of_a_clip(released: Path) -> None:
    pairs = read_pairs(released)
    assert list(zip(pairs.audio_ids, pairs.caption_ids, strict=True)) == UNION
    assert pairs.captions == [TEXTS[name] for _, name in UNION]
    assert all(math.isnan(score) for score in pairs.scores)
    assert set(pairs.rules) == {"listed"}
    assert pairs.meta == {"rule": "listed", "source": str(released)}
    assert pairs.captions[3] is pairs.captions[5]


def test_their_json_of_clips_reads_with_the_map_beside_it_or_named(released: Path) -> None:
    lists = {FIRST: [3, 10, 0, 7, 2], SECOND: [7]}
    beside, away = released.with_name("X.json"), released.with_name("away.json")
    for file in (beside, away):
        file.write_text(json.dumps(lists))
    assert [pair[:2] for pair in rows(beside)] == UNION
    named = str(released.with_name("X_map.csv"))
    assert same(rows(away, named), rows(beside))
    with pytest.raises(DataError, match=r"no away_map\.csv beside it; name their file"):
        read_pairs(away)
    pool = released.with_name("pool.txt")
    pool.write_text("\n".join(f"caption {i}" for i in range(12)))
    assert [pair.caption for pair in rows(away, str(pool))][:2] == ["caption 3", "caption 10"]


def test_coco_ids_name_the_captions_of_coco(tmp_path: Path, realdata: Path) -> None:
    coco = realdata / "captions" / "coco_val2017" / "captions_val2017.json"
    known = read_captions(coco)[:3]
    lists = tmp_path / "lists.json"
    lists.write_text(json.dumps({"a": [int(known[0].id), int(known[2].id)]}))
    assert rows(lists, str(coco)) == [
        Pair("a", caption.id, caption.text, pair.score, "listed")
        for caption, pair in zip((known[0], known[2]), rows(lists, str(coco)), strict=True)
    ]


@pytest.mark.parametrize(
    "name, clip",
    [
        ("---1_cCGK4M.p0.4_01", "---1_cCGK4M"),
        ("---1_cCGK4M.p0.4.4_01.jpg", "---1_cCGK4M"),
        ("a.p0", "a"),
        ("a.p0.mp3", "a"),
        ("a.p0.4_01.p0.1_01", "a.p0.4_01"),
        ("my clip.wav", "my clip.wav"),
        ("a.p0 live", "a.p0 live"),
    ],
)
def test_the_clip_of_a_frames_name(name: str, clip: str) -> None:
    assert clip_of(name) == clip
    assert clip_of(frame_name(clip, 3, 4)) == clip
    assert frame_name("x", 0, 4) == "x.p0.4_01"


def test_the_map_and_the_index_files_are_captions_too(released: Path) -> None:
    captions = read_captions(released.with_name("X_map.csv"))
    assert [c.id for c in captions] == ["0", "2", "3", "7", "10", "11"]
    assert captions[1].text == TEXTS["2"] and captions[1].clip is None
    index = released.with_name("src_audiocaps_val.csv")
    index.write_text('{"dir": "all", "id": "x", "labels": ["/m/1"], "captions": ["a", "b"]}\n')
    assert [pair[:3] for pair in rows(index)] == [("x", "x#0", "a"), ("x", "x#1", "b")]


# ---- round trips -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_rows_come_back_as_they_were(tmp_path: Path, suffix: str) -> None:
    path, meta = tmp_path / f"p{suffix}", {"rule": "pivot", "k": 3}
    assert write_pairs(path, iter(ODD), meta) == 4
    assert same(rows(path), ODD)
    assert read_meta(path) == meta
    data = path.read_bytes()
    write_pairs(path, stream_pairs(path), meta)
    assert path.read_bytes() == data


@pytest.mark.parametrize("name", ["q_cap.csv", "q.json"])
def test_lists_come_back_without_their_scores(tmp_path: Path, name: str) -> None:
    clean = [pair._replace(caption=" ".join(pair.caption.split())) for pair in ODD]
    path = tmp_path / name
    assert write_pairs(path, clean, {"rule": "pivot"}) == 4
    together = [clean[0], clean[2], clean[1], clean[3]]  # a clip's captions stand together
    assert same(rows(path), [p._replace(score=math.nan, rule="pivot") for p in together])
    assert read_meta(path) == {"rule": "pivot"}
    data = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    write_pairs(path, stream_pairs(path), {"rule": "pivot"})
    assert data == {file.name: file.read_bytes() for file in tmp_path.iterdir()}


def test_what_lists_look_like_on_disk(tmp_path: Path) -> None:
    pairs = [Pair("a", "7", "rain"), Pair("b", "x", "é"), Pair("a", "007", "wind")]
    pairs.append(pairs[0])  # a pair that stands twice is written once
    assert write_pairs(tmp_path / "p_cap.csv", pairs, {}) == 3
    assert (tmp_path / "p_cap.csv").read_text("utf-8") == (
        '["a.p0.1_01", [7, "007"]]\n["b.p0.1_01", ["x"]]\n'
    )
    assert (tmp_path / "p_map.csv").read_text(
        "utf-8"
    ) == '[7, "rain"]\n["x", "é"]\n["007", "wind"]\n'
    write_pairs(tmp_path / "p.json", pairs, {})
    assert json.loads((tmp_path / "p.json").read_text()) == {"a": [7, "007"], "b": ["x"]}
    about = json.loads(about_of(tmp_path / "p.json").read_text())
    assert about["pairs"] == 3 and about["file"] == "p.json"


def test_a_note_beside_a_file_that_has_changed_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    write_pairs(path, ODD, {"rule": "pivot"})
    path.write_text(path.read_text().replace("0.1", "0.2"))
    assert read_meta(path) == {"rule": "gold", "source": str(path)}


def test_clotho_goes_through_every_layout(realdata: Path, tmp_path: Path) -> None:
    source = realdata / "captions" / "clotho_v2" / "val.csv"
    gold = rows(source)
    assert len(gold) == 5225 and len({pair.audio_id for pair in gold}) == 1045
    for name in ("a.parquet", "b.csv", "c.jsonl", "d_cap.csv", "e.json"):
        assert write_pairs(tmp_path / name, gold, {"rule": "gold"}) == 5225
        assert same(rows(tmp_path / name), gold)


def test_utf16_as_spreadsheets_save_it(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("audio_id,caption_id,caption\nx,1,café\n", "utf-16")
    assert [pair[:3] for pair in rows(path)] == [("x", "1", "café")]
    path.write_bytes("audio_id,caption_id,caption\nx,1,a\n".encode("utf-16-le"))
    with pytest.raises(DataError, match="UTF-16 without its mark"):
        rows(path)


# ---- pivot pairs -----------------------------------------------------------------------------


def pairs_command(source: Path, out: Path, **values: Any) -> int:
    return convert.run(ConvertPairs(pairs=str(source), out=str(out), **values))


def test_pivot_pairs_converts_through_every_layout_and_back(released: Path, capsys: Any) -> None:
    folder, before = released.parent, rows(released)
    source = released
    for name in ("a.parquet", "b.csv", "c.jsonl", "X.json", "d_cap.csv", "e.parquet"):
        assert pairs_command(source, folder / name) == 0
        source = folder / name
    assert same(rows(source), before)
    assert read_meta(source) == {"rule": "listed", "source": str(released)}
    assert json.loads((folder / "X.json").read_text()) == {FIRST: [3, 10, 0, 7, 2], SECOND: [7]}
    assert (folder / "X_map.csv").read_text() == MAP  # it has all captions, so it stays
    said = capsys.readouterr().out
    assert f"{source}: 6 pairs of 2 clips with 5 captions; 3.00 a clip (1 to 5)" in said


def test_pivot_pairs_takes_the_clips_of_a_list(released: Path, capsys: Any) -> None:
    folder = released.parent
    (folder / "ids.txt").write_text(f"{SECOND}.wav\nunknown\nother\n")
    assert pairs_command(released, folder / "p.csv", ids=str(folder / "ids.txt")) == 0
    assert [pair[:2] for pair in rows(folder / "p.csv")] == [(SECOND, "7")]
    assert "2 of 3 ids of" in (told := capsys.readouterr().err) and "unknown, other" in told
    assert read_meta(folder / "p.csv")["only"]["listed"] == 3
    (folder / "ids.txt").write_text("unknown\n")
    with pytest.raises(DataError, match=r"no pair of .* \(such as unknown\)"):
        pairs_command(released, folder / "none.csv", ids=str(folder / "ids.txt"))
    assert not (folder / "none.csv").exists()


def test_a_map_with_other_captions_is_not_replaced(released: Path) -> None:
    other = released.with_name("X_map.csv")
    pairs = [Pair("a", "3", "another sentence")]
    with pytest.raises(DataError, match="does not have caption 3 as it is here"):
        write_pairs(released.with_name("X.json"), pairs, {})
    assert other.read_text() == MAP and not released.with_name("X.json").exists()


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("X_cap.csv", '["a.p0.4_01", [3, 99]]\n', "line 1: caption 99 is not in .*X_map.csv"),
        ("X_cap.csv", CAP + '["---2_BBVHAA.p0.4_02", [7, 1', "line 5 is not JSON"),
        ("X_cap.csv", CAP + '["a", [7], 1]\n', "line 5 is not"),
        ("X_cap.csv", '["a", [1.5]]\n', "caption id 1.5"),
        ("X_cap.csv", '["a", []]\n', "holds no pair"),
        ("X.json", '{"a": [3], "a": [7]}', "'a' stands twice"),
        ("X.json", '{"a": 3}', "entry a is not"),
        ("X.json", "[3]", "is not an object"),
        ("p.csv", "audio_id,caption_id,caption\nx,1\n", "row 2 has 2 cells"),
        ("p.csv", "audio_id,caption_id,caption,score\nx,1,a,high\n", "score 'high' is no number"),
        ("p.csv", "audio_id,caption_id,caption\nx,1, \n", "pair 0 lacks"),
        ("p.csv", "audio_id,caption_id,caption\n", "holds no pair"),
        ("p.jsonl", '{"audio_id": "x", "caption_id": "1", "caption": "a"}\n{"aud', "line 2 is not"),
        ("p.jsonl", '{"audio_id": "x", "caption_id": 1, "caption": "a"}\n', "must be texts"),
    ],
)
def test_wrong_files_are_named(released: Path, name: str, text: str, words: str) -> None:
    released.with_name(name).write_text(text)
    out = released.with_name("out.parquet")
    with pytest.raises(DataError, match=words):
        pairs_command(released.with_name(name), out)
    assert not out.exists() and not list(released.parent.glob(".tmp*"))


def test_more_mistakes(released: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.parquet"
    released.with_name("X_map.csv").write_text(MAP + '[3, "again"]\n')
    with pytest.raises(DataError, match="caption id 3 stands twice"):
        pairs_command(released, out)
    released.with_name("X_map.csv").unlink()
    with pytest.raises(DataError, match=r"no X_map\.csv beside it"):
        pairs_command(released, out)
    table = tmp_path / "t.csv"
    write_pairs(table, ODD, {})
    cases: list[tuple[Path, dict[str, Any], type[UserError], str]] = [
        (table, {"captions": "c.txt"}, SettingsError, "for lists of caption ids"),
        (tmp_path / "none.csv", {}, DataError, "none.csv does not exist"),
        (tmp_path / "none.parquet", {}, DataError, "none.parquet does not exist"),
    ]
    for source, values, error, words in cases:
        with pytest.raises(error, match=words):
            pairs_command(source, out, **values)
    with pytest.raises(SettingsError, match=r"must end in \.parquet, \.csv"):
        pairs_command(table, tmp_path / "p.xlsx")
    with pytest.raises(DataError, match='c stands for "a" and for "b"'):
        write_pairs(tmp_path / "p.json", [Pair("x", "c", "a"), Pair("y", "c", "b")], {})
    assert not out.exists()
