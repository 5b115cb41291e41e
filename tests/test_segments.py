"""AudioSet's, AudioCaps's and VGGSound's lists, joined with downloaded files by YouTube id."""

from pathlib import Path

import pytest

from video_prep.errors import UserError
from video_prep.index import AUDIO, Clip, read_clips

HEAD = (
    "# Segments csv created\n# num_ytids=2\n# YTID, start_seconds, end_seconds, positive_labels\n"
)
TABLE = 'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/t/dd00088,"Gush"\n'
CAPTIONS = "audiocap_id,youtube_id,start_time,caption\n"


def write(path: Path, text: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def folder(root: Path, *names: str) -> str:
    """A folder with empty files of these names."""
    root.mkdir(exist_ok=True)
    for name in names:
        write(root / name, b"")
    return str(root)


def brief(clips: list[Clip]) -> list[tuple[str, str, float | None, float | None]]:
    return [(clip.id, clip.source, clip.start, clip.end) for clip in clips]


# ---- AudioSet ------------------------------------------------------------------------------


def test_audioset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (
        '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\r\n'
        "\r\n"
        "# in between\r\n"
        '_JHxphWEs.-, 0.000, 9.500, "/m/09x0r"\r\n'
    ).replace("WEs.-", "WEs0-")
    text = b"\xef\xbb\xbf" + (HEAD.replace("\n", "\r\n") + rows).encode()
    media = folder(tmp_path / "m", "a/--PJHxphWEs.mp4", "_JHxphWEs0-.webm", "other.mp4", "x.jpg")
    write(tmp_path / "class_labels_indices.csv", TABLE)
    clips = read_clips(write(tmp_path / "any.name.csv", text), media=media)
    assert clips == [
        Clip(
            "--PJHxphWEs",
            tmp_path / "m/a/--PJHxphWEs.mp4",
            30.0,
            40.0,
            ("Speech", "Gush"),
            (),
            "a/--PJHxphWEs.mp4",
        ),
        Clip(
            "_JHxphWEs0-",
            tmp_path / "m/_JHxphWEs0-.webm",
            0.0,
            9.5,
            ("Speech",),
            (),
            "_JHxphWEs0-.webm",
        ),
    ]
    assert capsys.readouterr().err.splitlines() == [
        f"files in {media} that no row names are left out: 1 (the first: other.mp4)",
        f"labels are named by {tmp_path}/class_labels_indices.csv",
    ]


@pytest.mark.parametrize(
    "text",
    [
        'aaaaaaaaaaa, 1.000, 2.000, "/m/09x0r"\n',
        "YTID,start_seconds,end_seconds,positive_labels\naaaaaaaaaaa,1,2,/m/09x0r\n",
        "aaaaaaaaaaa,1,2,/m/09x0r\n",
        HEAD + "aaaaaaaaaaa, 1, 2, /m/09x0r\n",
    ],
)
def test_audioset_by_content(tmp_path: Path, text: str) -> None:
    media = folder(tmp_path / "m", "aaaaaaaaaaa.mp4")
    (clip,) = read_clips(write(tmp_path / "l.txt", text), media=media)
    assert (clip.id, clip.start, clip.end, clip.labels) == ("aaaaaaaaaaa", 1, 2, ("/m/09x0r",))


def test_two_segments_of_a_video(tmp_path: Path) -> None:
    rows = "aaa, 30, 40, /m/09x0r\nbbb, 0, 10, /m/09x0r\naaa, 0.5, 10, /m/09x0r\n"
    source = write(tmp_path / "l.csv", HEAD + rows)
    media = folder(tmp_path / "m", "aaa.mp4", "bbb.mp4")
    assert brief(read_clips(source, media=media)) == [
        ("aaa_30", "aaa.mp4", 30, 40),
        ("bbb", "bbb.mp4", 0, 10),
        ("aaa_0.5", "aaa.mp4", 0.5, 10),
    ]
    cut = read_clips(source, media=media, already_cut=True)
    assert brief(cut)[1] == ("bbb", "bbb.mp4", None, None)
    assert cut[0].fault == (
        "unclear_segment",
        "aaa.mp4 is cut, but the list has 2 segments of aaa; put the start into its name, "
        "as aaa_30",
    )


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("aaa, 5, 3, /m/a", "line 4: start 5 is not before end 3"),
        ("aaa, 5, 5, /m/a", "line 4: start 5 is not before end 5"),
        ("aaa, nan, 5, /m/a", "line 4: time 'nan' is not a number of seconds"),
        ("aaa, -1, 5, /m/a", "line 4: time '-1' is not"),
        ("aaa, , 5, /m/a", "line 4: a time is empty"),
        ("aaa, 1, 5", "line 4: 3 cells, not the four of YTID, start_seconds"),
        ("a/b, 1, 5, /m/a", "line 4: 'a/b' is not a YouTube id"),
        ("a.b, 1, 5, /m/a", "line 4: 'a.b' is not a YouTube id"),
        ("../a, 1, 5, /m/a", "line 4: '../a' is not a YouTube id"),
        (", 1, 5, /m/a", "line 4: '' is not a YouTube id"),
        ("#NAME?, 1, 5, /m/a", "line 4: '#NAME.' is not a YouTube id"),
        ("aaa, 1, 5, /m/a\n\nb, 1, 2, /m/a\naaa, 1, 6, /m/a", "the same id 'aaa_1' .lines 4 and 7"),
        ('aaa, 1, 5, "/m/a\nb, 1, 2, /m/a"\n', "line 5: a quote is not closed"),
        ('aaa, 1, 5, "/m/a\nb, 1, 2, /m/a\n', "line 5: not valid CSV"),
        ('aaa, 1, 5, "/m/a" x\n', "line 4: not valid CSV"),
        ("", "lists no clips"),
    ],
)
def test_wrong_audioset_rows(tmp_path: Path, row: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        read_clips(
            write(tmp_path / "l.csv", HEAD + row), media=folder(tmp_path / "m", "aaa.mp4", "b.mp4")
        )
    assert "\n" not in str(raised.value)


# ---- AudioCaps and VGGSound ----------------------------------------------------------------


def test_audiocaps(tmp_path: Path) -> None:
    source = write(
        tmp_path / "l.csv",
        CAPTIONS
        + '1,-aa,20,"Food is frying, and a woman talks"\n2,bbb,0,a rocket\n3,-aa,20, Oil \n',
    )
    clips = read_clips(source, AUDIO, media=folder(tmp_path / "m", "Y-aa.wav", "bbb_0.flac"))
    assert brief(clips) == [("-aa", "Y-aa.wav", None, None), ("bbb", "bbb_0.flac", None, None)]
    assert clips[0].captions == ("Food is frying, and a woman talks", "Oil")
    again = write(tmp_path / "b.csv", CAPTIONS + "1,aaa,20,a\n2,aaa,40,b\n")
    assert brief(read_clips(again, media=folder(tmp_path / "n", "aaa.mp4"))) == [
        ("aaa_20", "aaa.mp4", 20, 30),
        ("aaa_40", "aaa.mp4", 40, 50),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audiocap_id,youtube_id,caption\n1,a,b\n", "column 'start_time' is missing"),
        (CAPTIONS + "1,aaa,20,a rocket, flying\n", "line 2: 5 cells for 4 columns; put quotes"),
        (CAPTIONS + "1,aaa,20\n", "line 2: 3 cells for 4 columns"),
        (CAPTIONS + "1,aaa,20,\n", "line 2: the caption of aaa is empty"),
        (CAPTIONS + "1,aaa,x,b\n", "line 2: time 'x'"),
        (CAPTIONS, "lists no clips"),
    ],
)
def test_wrong_audiocaps(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_clips(write(tmp_path / "l.csv", text), media=folder(tmp_path / "m", "aaa.mp4"))


@pytest.mark.parametrize(
    "text",
    [
        '---g-f_I2yQ,1,"playing violin, fiddle",test\n-0BIyqJj9ZU,30,rapping,train\n',
        '---g-f_I2yQ_000001.mp4,"playing violin, fiddle"\r\n-0BIyqJj9ZU_000030.mp4,rapping\r\n',
        "id\tlabel\n---g-f_I2yQ_000001\tplaying violin, fiddle\n-0BIyqJj9ZU_000030\trapping\n",
    ],
)
def test_vggsound(tmp_path: Path, text: str) -> None:
    media = folder(tmp_path / "m", "---g-f_I2yQ_000001.mp4", "-0BIyqJj9ZU.mp4")
    clips = read_clips(write(tmp_path / "l.tsv", text), media=media)
    assert brief(clips) == [
        ("---g-f_I2yQ_000001", "---g-f_I2yQ_000001.mp4", None, None),
        ("-0BIyqJj9ZU_000030", "-0BIyqJj9ZU.mp4", 30, 40),
    ]
    assert [clip.labels for clip in clips] == [("playing violin, fiddle",), ("rapping",)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aaa,1,playing violin,test\nbbb,1,violin, fiddle,test\n", "line 2: 5 cells, not VGG"),
        ("aaa_000001.mp4,x\nbbb,y\n", "line 2: not VGGSound's pair"),
        ("aaa_000001.mp4,violin\nbbb_000001.mp4,violin, fiddle\n", "line 2: not VGGSound's pair"),
        ("id\tlabel\nbbb\ty\n", "line 2: not VGGSound's pair"),
        ("aaa_000001.mp4,x\naaa_000001.mp4,y\n", "the same id 'aaa_000001' .lines 1 and 2"),
    ],
)
def test_wrong_vggsound(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_clips(write(tmp_path / "l.csv", text), media=folder(tmp_path / "m", "aaa.mp4"))


# ---- names of files ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "Yabc-_1_2_30.wav",
        "abc-_1_2_30.flac",
        "abc-_1_2_000030.mp4",
        "abc-_1_2_30000.mp4",
        "abc-_1_2_30000_40000.FLAC",
        "abc-_1_2_30.000_40.000.mkv",
        "Yabc-_1_2_30.000_40.000.wav",
        "abc-_1_2_30-40.wav",
        "Yabc-_1_2.wav",
    ],
)
def test_names_of_cut_files(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "l.csv", HEAD + "abc-_1_2, 30.000, 40.000, /m/09x0r\n")
    (clip,) = read_clips(source, AUDIO, media=folder(tmp_path / "m", name))
    assert (clip.id, clip.source, clip.start, clip.fault) == ("abc-_1_2", name, None, None)


@pytest.mark.parametrize(
    "name", ["abc_31.mp4", "abc_000003.mp4", "abc_30_45.mp4", "abc_30000_39000.mp4", "abc_3.mp4"]
)
def test_other_segments_are_not_taken(tmp_path: Path, name: str) -> None:
    source = write(tmp_path / "l.csv", HEAD + "abc, 30, 40, /m/a\nddd, 0, 10, /m/a\n")
    clips = read_clips(source, media=folder(tmp_path / "m", name, "ddd.mp4"))
    text = f"only other segments of abc are there, as {name}"
    assert clips[0].fault == ("missing_file", text)
    assert clips[1].fault is None


def test_starts_that_are_no_whole_seconds(tmp_path: Path) -> None:
    source = write(tmp_path / "l.csv", HEAD + "abc, 30.68, 40.68, /m/a\nddd, 7.5, 9, /m/a\n")
    media = folder(tmp_path / "m", "abc_30680_40680.mp4", "ddd_000007.mp4")
    assert [clip.fault for clip in read_clips(source, media=media)] == [None, None]


def test_names_that_are_no_clip(tmp_path: Path) -> None:
    """Leftovers of a download, hidden files, and ids that another id begins with."""
    source = write(tmp_path / "l.csv", HEAD + "abc, 0, 10, /m/a\nabcd, 0, 10, /m/a\n")
    names = ("abc.mp4.part", "abc.f137.mp4", ".abc.mp4", "abc.jpg", "abce.mp4", "xabc.mp4")
    clips = read_clips(source, media=folder(tmp_path / "m", *names, "abcd.mp4"))
    assert clips[0].fault == ("missing_file", "no file is named abc")
    assert clips[1].fault is None


def test_two_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "l.csv", CAPTIONS + "1,aaa,0,a\n2,bbb,0,b\n")
    media = folder(tmp_path / "m", "x/aaa.mp4", "aaa.webm", "aaa_0.mkv", "bbb.mp4", "bbb.wav")
    clips = read_clips(source, media=media)
    text = "aaa.webm and aaa_0.mkv (and 1 more) are both aaa; keep one"
    assert clips[0].fault == ("two_files", text)
    assert clips[1].source == "bbb.mp4"
    said = capsys.readouterr().err
    assert said == f"1 of 2 clips have no file that is theirs alone (the first: {text})\n"
    assert read_clips(source, AUDIO, media=media)[1].source == "bbb.wav"
    (tmp_path / "m/bbb.wav").unlink()
    assert read_clips(source, AUDIO, media=media)[1].source == "bbb.mp4"


def test_missing_files_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = "".join(f"{k:011}, 0, 10, /m/a\n" for k in range(2000))
    media = folder(tmp_path / "m", f"{7:011}.mp4", f"sub/Y{9:011}.mp4")
    clips = read_clips(write(tmp_path / "l.csv", HEAD + rows), media=media)
    assert [k for k, clip in enumerate(clips) if clip.fault is None] == [7, 9]
    assert clips[0].fault == ("missing_file", "no file is named 00000000000")
    assert not clips[0].path.exists()
    assert capsys.readouterr().err.splitlines() == [
        "files named Y and an id are taken as cut to their segment: 1",
        f"1,998 of 2,000 clips have no file in {media} (the first: 00000000000)",
        "labels stay ids such as /m/a: there is no ontology.json or class_labels_indices.csv "
        f"beside {tmp_path}/l.csv (--ontology names one)",
    ]


def test_wrong_media(tmp_path: Path) -> None:
    source = write(tmp_path / "l.csv", HEAD + "aaa, 0, 10, /m/a\n")
    with pytest.raises(UserError, match="lists YouTube videos; add --media with the folder"):
        read_clips(source)
    with pytest.raises(UserError, match=r"m is not a folder; give the one"):
        read_clips(source, media=str(tmp_path / "m"))
    with pytest.raises(UserError, match=r"has a file in .*m: it holds no video file .wanted: aaa"):
        read_clips(source, media=folder(tmp_path / "m", "aaa.wav"))
    with pytest.raises(
        UserError,
        match=r"none of the 1 clips .* looked for files named aaa, ...; "
        r"there are bbb.mp4, c/d.mp4",
    ):
        read_clips(source, media=folder(tmp_path / "m", "bbb.mp4", "c/d.mp4"))
    with pytest.raises(UserError, match="--media goes with a list"):
        read_clips(str(tmp_path / "m"), media=str(tmp_path / "m"))
    with pytest.raises(UserError, match="--already-cut tells of the files in --media"):
        read_clips(write(tmp_path / "p.csv", "path\na.mp4\n"), already_cut=True)
    with pytest.raises(UserError, match="does not exist"):
        read_clips(str(tmp_path / "nowhere.csv"))


def test_own_lists_with_youtube_ids(tmp_path: Path) -> None:
    source = write(
        tmp_path / "l.csv", "youtube_id,id,start,end,labels\naaa,x,1,2,dog;cat\nbbb,,,,\n"
    )
    media = folder(tmp_path / "m", "aaa.mp4", "bbb.mp4")
    clips = read_clips(source, media=media)
    assert brief(clips) == [("x", "aaa.mp4", 1, 2), ("bbb", "bbb.mp4", None, None)]
    assert clips[0].labels == ("dog", "cat")
    rows = '{"youtube_id": "aaa", "id": "x", "start": 1, "end": 2, "labels": ["dog", "cat"]}\n'
    assert read_clips(write(tmp_path / "l.jsonl", rows), media=media) == clips[:1]
    for text, given, message in (
        ("youtube_id\naaa\n", None, "named by YouTube id; add --media"),
        ("path\na.mp4\n", media, "the clips have paths of their own; leave out --media"),
        ("video,x\na,b\n", media, "there is no column 'youtube_id'"),
        ("youtubeid,x\na,b\n", media, "perhaps you meant 'youtube_id'"),
        ("youtube_id\na/b\n", media, "line 2: 'a/b' is not a YouTube id"),
        ("youtube_id\naaa\naaa\n", media, "the same id 'aaa' .lines 2 and 3"),
    ):
        with pytest.raises(UserError, match=message):
            read_clips(write(tmp_path / "l.csv", text), media=given)


# ---- labels --------------------------------------------------------------------------------


def test_ontology(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "l.csv", HEAD + 'aaa, 0, 10, "/m/09x0r,/t/dd00088"\n')
    media = folder(tmp_path / "m", "aaa.mp4")
    tree = write(
        tmp_path / "o/o.json",
        '[{"id": "/m/09x0r", "name": "Speech"}, {"id": "/t/dd00088", "name": "Gush"}]',
    )
    table = write(tmp_path / "o/t.csv", TABLE)
    for file in (tree, table):
        assert read_clips(source, media=media, ontology=file)[0].labels == ("Speech", "Gush")
    assert capsys.readouterr().err == ""
    for text, message in (
        ("index,mid\n0,/m/09x0r\n", "is neither AudioSet's ontology.json nor its class_labels"),
        ('{"Speech": 0}', "is neither"),
        ("[1, 2", "is neither"),
        ("", "is neither"),
        ('[{"id": "/m/09x0r", "name": "Speech"}]', "label '/t/dd00088' is not in"),
    ):
        with pytest.raises(UserError, match=message):
            read_clips(source, media=media, ontology=write(tmp_path / "o/wrong", text))
    with pytest.raises(UserError, match=r"--ontology .*nowhere is not a file"):
        read_clips(source, media=media, ontology=str(tmp_path / "nowhere"))
    named = write(tmp_path / "n.csv", "aaa,0,rapping,test\n")
    with pytest.raises(UserError, match="has no label that is an id such as /m/09x0r"):
        read_clips(named, media=media, ontology=tree)


def test_labels_of_an_own_list(tmp_path: Path) -> None:
    table = write(tmp_path / "t.csv", TABLE)
    source = write(tmp_path / "l.csv", "path,labels\na.mp4,/m/09x0r;dog\n")
    assert read_clips(source, ontology=table)[0].labels == ("Speech", "dog")


# ---- the real lists ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("labels/audioset/balanced_train_segments.csv", 22160, "--PJHxphWEs"),
        ("labels/audioset/eval_segments.csv", 20371, "--4gqARaEJE"),
        ("captions/audiocaps_v1/train.csv", 49838, "r1nicOVtvkQ"),
        ("captions/audiocaps_v1/val.csv", 495, "vfY_TJq7n_U"),
        ("captions/audiocaps_v1/test.csv", 975, "7fmOlUlwoNg"),
        ("captions/audiocaps_v2/val.csv", 495, "vfY_TJq7n_U"),
        ("captions/audiocaps_v2/test.csv", 975, "7fmOlUlwoNg"),
        ("labels/vggsound/test.csv", 15446, "glLQrEijrKg_000300"),
        ("labels/vggsound/vgg-test.tsv", 15221, "---g-f_I2yQ_000001"),
        ("labels/vggsound/vgg-val.tsv", 2048, "--96EN9NUQM_000242"),
    ],
)
def test_real_lists(
    realdata: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    count: int,
    first: str,
) -> None:
    media = folder(tmp_path / "m", f"sub/{first}.mp4")
    clips = read_clips(str(realdata / name), media=media)
    assert (len(clips), clips[0].id, clips[0].source) == (count, first, f"sub/{first}.mp4")
    assert [clip.fault and clip.fault[0] for clip in clips] == [None] + ["missing_file"] * (
        count - 1
    )
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(
        f"{count - 1:,} of {count:,} clips have no file in {media} (the first:"
    )
    assert len(said) == (2 if "audioset" in name else 1)


def test_real_contents(realdata: Path, tmp_path: Path) -> None:
    media = folder(tmp_path / "m", "--aE2O5G5WE.mp4", "vfY_TJq7n_U.mp4", "x.mp4")
    balanced = realdata / "labels/audioset/balanced_train_segments.csv"
    ontology = str(realdata / "labels/audioset/ontology.json")
    clip = read_clips(str(balanced), media=media, ontology=ontology)[2]
    assert (clip.id, clip.start, clip.end) == ("--aE2O5G5WE", 0, 10)
    assert clip.labels == ("Goat", "Music", "Speech")
    clip = read_clips(str(realdata / "captions/audiocaps_v1/val.csv"), media=media)[0]
    assert (clip.start, clip.end, len(clip.captions)) == (130, 140, 5)
    assert clip.captions[1] == "Ducks quack as a man speaks and makes a duck sound"
