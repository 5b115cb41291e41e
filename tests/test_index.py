"""Sources other than data sets' lists: what is a list, comments, quotes, broken text, folders."""

import json
from pathlib import Path

import pytest

from video_prep.errors import UserError
from video_prep.index import AUDIO, read_clips


def write(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_marks_ends_comments_and_quotes(tmp_path: Path, end: str, mark: bytes) -> None:
    lines = [
        "# made by hand",
        "",
        '# with a "quote',
        "path,id,captions",
        '"a, b.mp4",1,"says ""hi"", twice"',
        "#c.mp4,2,",
    ]
    clips = read_clips(write(tmp_path / "l.csv", mark + end.join(lines).encode()))
    assert [(clip.id, clip.path) for clip in clips] == [
        ("1", tmp_path / "a, b.mp4"),
        ("2", tmp_path / "#c.mp4"),  # after the first row a line is a row
    ]
    assert clips[0].captions == ('says "hi", twice',)


def test_tabs(tmp_path: Path) -> None:
    for name in ("l.tsv", "l.csv"):
        source = write(tmp_path / name, "path\tcaptions\na.mp4\tone, two\n")
        assert read_clips(source)[0].captions == ("one, two",)


def test_json_lines_by_content(tmp_path: Path) -> None:
    source = write(tmp_path / "l.csv", '\n{"path": "a.mp4", "id": 7, "start": 1.5}\n')
    (clip,) = read_clips(source)
    assert (clip.id, clip.start, clip.path) == ("7", 1.5, tmp_path / "a.mp4")


def test_ids_with_slashes_and_dots_are_kept(tmp_path: Path) -> None:
    source = write(tmp_path / "l.csv", "path,id\na.mp4,a/b.c/../d\nx/y.z.mp4,\n")
    assert [clip.id for clip in read_clips(source)] == ["a/b.c/../d", "x/y.z"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path,id\n"a.mp4,x\nb.mp4,y\n', "line 3: not valid CSV"),
        ('path,id\n"a" b.mp4,x\n', "line 2: not valid CSV"),
        ("path,id\na.mp4,x\n\nb.mp4,x\n", "clips 1 and 2 have the same id 'x' .lines 2 and 4"),
        ("path\n.\n", "line 2: the path '.' names no file"),
        ("path\n/\n", "line 2: the path '/' names no file"),
        ("path,end\na.mp4,0\n", "line 2: end 0 leaves nothing"),
        ("path,start,end\na.mp4,2,2.0\n", "line 2: start 2 is not before end 2"),
        ("# nothing but this\n", "lists no clips"),
        ("a.mp4\nb.mp4\n", r"there is no column 'path' \(found: a.mp4\)"),
        (b"path\n\xff\xfe.mp4\n", "cannot be read as UTF-8 text"),
        ("path\na.mp4\n".encode("utf-16-le"), "holds NUL bytes and is no text"),
        (b"\xff\xfep\0a\0\0", "cannot be read as UTF-8 text"),
    ],
)
def test_wrong_csv(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read_clips(write(tmp_path / "l.csv", text))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"path": "a.mp4"}]', "line 1: not an object"),
        ("[" * 100_000, "line 1: not valid JSON"),
        ("hello", "line 1: not valid JSON"),
        (json.dumps({"path": "a\0.mp4"}), "line 1: the path is empty"),
        ('{"path": "a.mp4", "start": 1%s}' % ("0" * 400), "line 1: start 1000"),
        ('{"path": "a.mp4", "start": Infinity}', "line 1: start inf"),
        ('{"path": "a"}\n{"id": "b"}', "line 2: there is no column 'path'"),
        ('{"path": "a"}\n{"path": "a"}', "the same id 'a' .lines 1 and 2"),
    ],
)
def test_wrong_json_lines(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read_clips(write(tmp_path / "l.jsonl", text))
    assert "\n" not in str(raised.value)


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    (tmp_path / "closed").mkdir()
    write(tmp_path / "a.wav", "")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [clip.id for clip in read_clips(str(tmp_path), AUDIO)] == ["a"]
    said = capsys.readouterr().err
    assert (
        said == f"{tmp_path}/closed cannot be listed (Permission denied): its files are left out\n"
    )


def test_a_media_file_is_no_list(tmp_path: Path) -> None:
    source = write(tmp_path / "l.mp4", "path\na.mp4\n")
    assert [clip.source for clip in read_clips(source)] == ["l.mp4"]
    with pytest.raises(
        UserError, match=r"--ontology goes with a list of YouTube videos, and .*mp4"
    ):
        read_clips(source, ontology="o.json")
