"""Clips that audioset-dl cut before: its folders, vipant's index, frames and sound as they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import soundfile

from tests.media import barcoded, number_on, tone, write_video
from video_prep.decode import decode_clip
from video_prep.decoding.extracted import read_extracted
from video_prep.errors import ClipError, UserError
from video_prep.index import Clip, read_clips
from video_prep.recipe import Recipe

SIZE = (96, 64)


def cut(
    root: Path, clip_id: str, *, names: str = "p0.4", folder: str = "aclip", first: int = 0
) -> None:
    """Frames and sound as audioset-dl leaves them, and a surrounding clip that is not read."""
    for name in ("frame", folder):
        (root / name).mkdir(parents=True, exist_ok=True)
    for k in range(4):
        jpeg = simplejpeg.encode_jpeg(barcoded(first + k, SIZE), quality=95)
        (root / f"frame/{clip_id}.{names}_{k + 1:02}.jpg").write_bytes(jpeg)
        (root / f"frame/{clip_id}.n0.4_{k + 1:02}.jpg").write_bytes(jpeg)
    wave = tone(2.0, 44100, 2).T
    soundfile.write(root / f"{folder}/{clip_id}.p0.mp3", wave, 44100)
    soundfile.write(root / f"{folder}/{clip_id}.n0.mp3", wave, 44100)


def row(clip_id: str, **more: Any) -> dict[str, Any]:
    frames = [f"p0.4_{k + 1:02}.jpg" for k in range(4)]
    return {
        "dir": "all_0_35000",
        "aclip": ["p0.mp3"],
        "frame": frames,
        "aclip_128": "p0.npz",
        "frame_224": "p0.npz",
        "id": clip_id,
        "bos": "130.000",
        "eos": "132.000",
        "labels": ["/m/09ddx"],
        **more,
    }


def index(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return str(path)


def read(clip: Clip, recipe: Recipe | None = None) -> Any:
    frames = [str(frame) for frame in clip.frames]
    return read_extracted(frames, str(clip.path), clip.start, clip.end, recipe or Recipe())


# ---- which clips ---------------------------------------------------------------------------


def test_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Called .csv and JSON lines inside; names as in the released index and as downloaded."""
    cut(tmp_path / "all_0_35000", "-aaaaaaaaaa")
    cut(tmp_path / "all_35000_70000", "_bbb", names="p0.4.4", folder="audio", first=10)
    (tmp_path / "ontology.json").write_text('[{"id": "/m/09ddx", "name": "Duck"}]')
    source = index(
        tmp_path / "src_full_eval_segments.csv",
        row("_bbb", dir="all_35000_70000", captions=["one", "two"]),
        row("-aaaaaaaaaa"),
        row("gone"),
    )
    clips = read_clips(source)
    assert [clip.id for clip in clips] == ["_bbb", "-aaaaaaaaaa", "gone"]
    assert clips[0] == Clip(
        id="_bbb",
        path=tmp_path / "all_35000_70000/audio/_bbb.p0.mp3",
        start=130.0,
        end=132.0,
        labels=("Duck",),
        captions=("one", "two"),
        source="all_35000_70000/audio/_bbb.p0.mp3",
        frames=tuple(
            tmp_path / f"all_35000_70000/frame/_bbb.p0.4.4_0{k + 1}.jpg" for k in range(4)
        ),
    )
    assert clips[1].path == tmp_path / "all_0_35000/aclip/-aaaaaaaaaa.p0.mp3"
    assert clips[1].frames[3].name == "-aaaaaaaaaa.p0.4_04.jpg"
    text = "neither all_0_35000/aclip/gone.p0.mp3 nor a frame of it is there"
    assert clips[2].fault == ("missing_file", text)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"1 of 3 clips have no file in {tmp_path} (the first: gone)"
    assert len(said) == 4
    assert said[3] == f"{source} lists 3 clips; AudioSet eval has 20,371"
    (tmp_path / "elsewhere").mkdir()
    moved = index(tmp_path / "elsewhere/l.csv", row("-aaaaaaaaaa"))
    assert read_clips(moved, media=str(tmp_path))[0].path == clips[1].path
    with pytest.raises(
        UserError, match=r"looked for all_0_35000/aclip/-aaaaaaaaaa.p0.mp3; --media"
    ):
        read_clips(moved)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"id": "a/b"}, "line 1: 'a/b' is not a YouTube id"),
        ({"dir": "../x"}, "line 1: dir '../x' is not a folder below"),
        ({"dir": "/x"}, "line 1: dir '/x' is not a folder below"),
        ({"frame": "p0.npz"}, "line 1: frame 'p0.npz' is not a list of texts"),
        ({"frame": ["../p0.4_01.jpg"]}, "line 1: '../p0.4_01.jpg' is not a name such as"),
        ({"aclip": ["n0.mp3"]}, "line 1: 'n0.mp3' is not a name such as"),
        ({"bos": "x"}, "line 1: bos 'x' is not a number of seconds"),
        ({"bos": "140.000"}, "line 1: start 140 is not before end 132"),
        ({"labels": "/m/09ddx"}, "line 1: labels '/m/09ddx' is not a list"),
    ],
)
def test_wrong_index(tmp_path: Path, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_clips(index(tmp_path / "l.csv", row("aaa") | more))


def test_incomplete_index(tmp_path: Path) -> None:
    short = row("aaa")
    del short["bos"]
    with pytest.raises(UserError, match="line 2: 'bos' is missing, which audioset-dl's index has"):
        read_clips(index(tmp_path / "l.csv", row("bbb"), short))
    with pytest.raises(UserError, match=r"the same id 'aaa' .lines 1 and 2"):
        read_clips(index(tmp_path / "l.csv", row("aaa"), row("aaa")))


def test_folder_without_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut(tmp_path / "balanced_0_100", "bbb", names="p0.4.4", folder="audio")
    cut(tmp_path / "balanced_100_200", "aaa", names="p0.4.4", folder="audio")
    cut(tmp_path / "balanced_100_200", "ccc", names="p0.4.4", folder="audio")
    (tmp_path / "balanced_0_100/frame/bbb.p0.4.4_04.jpg").unlink()
    for frame in (tmp_path / "balanced_100_200/frame").glob("ccc.*"):
        frame.unlink()
    clips = read_clips(str(tmp_path))
    assert [(clip.id, clip.source) for clip in clips] == [
        ("aaa", "balanced_100_200/audio/aaa.p0.mp3"),
        ("bbb", "balanced_0_100/audio/bbb.p0.mp3"),
        ("ccc", "balanced_100_200/audio/ccc.p0.mp3"),
    ]
    assert [len(clip.frames) for clip in clips] == [4, 3, 4]  # ccc: those that ought to be there
    assert "audioset-dl has cut" in capsys.readouterr().err
    assert [clip.id for clip in read_clips(str(tmp_path / "balanced_0_100"))] == ["bbb"]
    cut(tmp_path / "balanced_0_100", "aaa", folder="audio")
    text = "balanced_0_100/audio/aaa.p0.mp3 and balanced_100_200/audio/aaa.p0.mp3 are both aaa"
    assert read_clips(str(tmp_path))[0].fault == ("two_files", f"{text}; keep one")


def test_a_list_joined_with_a_folder_that_was_cut(tmp_path: Path) -> None:
    cut(tmp_path / "m/all_0_10", "aaa")
    source = tmp_path / "l.csv"
    source.write_text("audiocap_id,youtube_id,start_time,caption\n1,aaa,30,x\n2,bbb,0,y\n")
    clips = read_clips(str(source), media=str(tmp_path / "m"))
    assert (clips[0].start, clips[0].end, len(clips[0].frames)) == (30, 40, 4)
    assert clips[0].captions == ("x",)
    assert clips[1].fault == ("missing_file", "no file is named bbb.p0")


def test_other_folders_with_frames_are_no_cut_clips(tmp_path: Path) -> None:
    (tmp_path / "frame").mkdir()
    (tmp_path / "frame/a.mp4").touch()
    (tmp_path / "frame/a.jpg").touch()
    assert [clip.id for clip in read_clips(str(tmp_path))] == ["frame/a"]


# ---- what is in them -----------------------------------------------------------------------


def one(root: Path) -> Clip:
    cut(root / "all_0_35000", "aaa", first=5)
    return read_clips(index(root / "l.csv", row("aaa")))[0]


def test_frames_keep_their_bytes(tmp_path: Path) -> None:
    clip = one(tmp_path)
    decoded = read(clip)
    assert decoded.frames == [frame.read_bytes() for frame in clip.frames]
    assert [number_on(frame) for frame in decoded.frames] == [5, 6, 7, 8]
    assert decoded.facts["frames_are"] == "kept"
    assert decoded.facts["frame_files"] == [f"aaa.p0.4_0{k + 1}.jpg" for k in range(4)]
    assert decoded.facts["frame_size"] == [96, 64]
    assert decoded.facts["bounds"] == [130, 132]
    assert decoded.facts["frame_times"] == [130, 130.666667, 131.333333, 132]
    assert decoded.flags == []
    assert (decoded.rate, decoded.wave.dtype, len(decoded.wave)) == (16000, np.int16, 1)
    assert decoded.wave.shape[1] == pytest.approx(32000, abs=2000)
    native = read(clip, Recipe(audio_rate="native", channel="all"))
    assert (native.rate, len(native.wave)) == (44100, 2)


def test_frames_are_scaled_down_alone(tmp_path: Path) -> None:
    clip = one(tmp_path)
    decoded = read(clip, Recipe(short_side=32))
    assert decoded.facts["frames_are"] == "scaled"
    assert decoded.facts["frame_size"] == [48, 32]
    for small, frame in zip(decoded.frames, clip.frames, strict=True):
        got = simplejpeg.decode_jpeg(small).astype(float)
        whole = simplejpeg.decode_jpeg(frame.read_bytes()).astype(float)
        means = whole.reshape(32, 2, 48, 2, 3).mean(axis=(1, 3))
        assert np.abs(got - means).mean() < 3
    assert read(clip, Recipe(short_side=0)).facts["frames_are"] == "kept"


def test_missing_frames(tmp_path: Path) -> None:
    clip = one(tmp_path)
    clip.frames[3].unlink()
    with pytest.raises(
        ClipError, match=r"3 of 4 frames are there \(not 4\), --num-frames is 4"
    ) as e:
        read(clip)
    assert e.value.reason == "missing_frames"
    (listed,) = read_clips(index(tmp_path / "l.csv", row("aaa", frame=row("")["frame"][:3])))
    with pytest.raises(ClipError, match=r"3 of 4 frames are there \(not 4\)"):
        read(listed)
    three = read(listed, Recipe(num_frames=3))
    assert three.facts["frame_times"] == [130, 130.666667, 131.333333]
    with pytest.raises(ClipError, match="3 frames were cut before, --num-frames is 2") as e:
        read(clip, Recipe(num_frames=2))
    assert e.value.reason == "extra_frames"
    for frame in clip.frames[:3]:
        frame.unlink()
    with pytest.raises(ClipError, match="0 of 4 frames are there"):
        read(clip)
    (empty,) = read_clips(index(tmp_path / "l.csv", row("aaa", frame=[])))
    with pytest.raises(ClipError, match="0 of 4 frames are there"):
        read(empty)


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_broken_frames(tmp_path: Path, keep: int) -> None:
    clip = one(tmp_path)
    jpeg = clip.frames[2].read_bytes()
    clip.frames[2].write_bytes(jpeg[:keep])
    with pytest.raises(ClipError, match=r"aaa\.p0\.4_03\.jpg is no whole JPEG") as raised:
        read(clip)
    assert raised.value.reason == "frame_undecodable"


def test_flags(tmp_path: Path) -> None:
    clip = one(tmp_path)
    black = simplejpeg.encode_jpeg(np.zeros((64, 96, 3), np.uint8))
    for frame in clip.frames:
        frame.write_bytes(black)
    soundfile.write(clip.path, np.zeros(44100), 44100, format="MP3")
    assert set(read(clip).flags) == {
        "duplicate_frames",
        "black",
        "still",
        "silent_audio",
        "short_video",
    }


@pytest.mark.parametrize(
    ("sound", "why"), [(None, "missing_file"), (b"", "empty_file"), (b"no mp3" * 60, "not_media")]
)
def test_no_sound(tmp_path: Path, sound: bytes | None, why: str) -> None:
    clip = one(tmp_path)
    clip.path.unlink()
    if sound is not None:
        clip.path.write_bytes(sound)
    decoded = read(clip)
    assert (decoded.wave, decoded.copied, decoded.flags) == (None, None, ["no_audio"])
    assert decoded.facts["samples"] == 0
    assert decoded.facts["sound_error"].startswith(f"{why}: aaa.p0.mp3 ")
    with pytest.raises(ClipError) as raised:
        read(clip, Recipe(num_frames=0))
    assert raised.value.reason == why


def test_sound_alone(tmp_path: Path) -> None:
    clip = one(tmp_path)
    clip.frames[0].unlink()
    decoded = read(clip, Recipe(num_frames=0))
    assert decoded.frames == []
    assert decoded.rate == 16000


def test_without_bounds(tmp_path: Path) -> None:
    cut(tmp_path, "aaa", names="p0.4.4", folder="audio")
    (clip,) = read_clips(str(tmp_path))
    decoded = read(clip)
    assert (decoded.facts["bounds"], decoded.facts["frame_times"]) == (None, None)
    assert [number_on(frame) for frame in decoded.frames] == [0, 1, 2, 3]


# ---- a whole video, for comparison ---------------------------------------------------------


def test_a_joined_segment_is_cut_without_encoding(tmp_path: Path) -> None:
    write_video(tmp_path / "m/-aaaaaaaaaa.mp4", 60, first=100, size=SIZE)
    source = tmp_path / "l.csv"
    source.write_text('-aaaaaaaaaa, 2.000, 4.000, "/m/09ddx"\n')
    (clip,) = read_clips(str(source), media=str(tmp_path / "m"))
    decoded = decode_clip(clip.path, clip.start, clip.end, Recipe())
    assert [number_on(frame) for frame in decoded.frames] == [127, 133, 139, 145]
