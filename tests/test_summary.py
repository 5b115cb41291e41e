"""The table of reasons and flags; summary.html: what it shows, that it is safe and small."""

import json
import random
import re
import shutil
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
import soundfile

import video_prep
from tests.media import tone, write_video
from video_prep.keys import key_of, shard_name
from video_prep.prepare import run, run_audio
from video_prep.report.charts import lengths, rates
from video_prep.report.page import percent, shown, size_text
from video_prep.report.summary import FLAGS, Summary, table
from video_prep.settings import PrepareAudio, PrepareFrames
from video_prep.storage.shard_writer import write_shard

HOSTILE = "<img src=x onerror=alert(1)> \"'&amp;"

# ---- the table -----------------------------------------------------------------------------


def test_the_table_that_is_printed() -> None:
    counts: dict[str, Any] = {"clips": 20_000, "prepared": 19_000, "failed": 1000}
    counts |= {"reasons": {"empty_file": 1, "missing_file": 999}, "flags": {"still": 9500}}
    assert table(counts).splitlines() == [
        "failed, by reason        clips   share",
        "missing_file               999   5.0 %",
        "empty_file                   1  <0.1 %",
        "prepared, with flag      clips   share",
        "still                    9,500  50.0 %",
    ]
    assert table({**counts, "reasons": {}}).splitlines()[0].startswith("prepared, with flag")
    assert table({**counts, "reasons": {}, "flags": {}}) == ""


def test_shares_are_never_rounded_to_none_or_all() -> None:
    shares = [percent(n, 100_000) for n in (0, 1, 100, 50_000, 99_950, 99_999, 100_000)]
    assert shares == ["0.0 %", "<0.1 %", "0.1 %", "50.0 %", ">99.9 %", ">99.9 %", "100.0 %"]
    assert percent(0, 0) == "0.0 %"


def test_texts_for_people() -> None:
    assert shown("a\x00b\n‮\ud800ü") == "a\\x00b\\n\\u202e\\ud800ü"
    assert shown("x" * 301) == "x" * 299 + "…"
    assert [size_text(n) for n in (0, 999, 1000, 3_040_000, 2_500_000_000)] == [
        "0 bytes",
        "999 bytes",
        "1 kB",
        "3.04 MB",
        "2.5 GB",
    ]


def test_every_flag_has_a_meaning() -> None:
    """What the decoders write as a flag is in the page's list."""
    flag = re.compile(r"(?:flags\.append\(|flags \+?= \[|return \[|\], \[)\"([a-z_]+)\"")
    folder = Path(video_prep.__file__).parent
    files = [folder / "decode.py", *(folder / "decoding").glob("*.py")]
    found = {name for file in files for name in flag.findall(file.read_text())}
    assert {"truncated", "corrupt_gop", "decoder_mismatch", "silent_audio", "still"} <= found
    assert found <= set(FLAGS)


# ---- charts --------------------------------------------------------------------------------


def bars(chart: str) -> list[tuple[str, str]]:
    return re.findall(r'height:([\d.]+)%" title="([^"]+)"', chart)


def marks(chart: str) -> list[tuple[str, str]]:
    return re.findall(r'left:([\d.]+)%">([^<]+)<', chart)


def test_histogram_of_lengths() -> None:
    chart = lengths(Counter({0.5: 1, 9.9: 3, 10.0: 4}))
    assert bars(chart) == [
        ("25.00", "0.5 to 1 s: 1"),
        ("75.00", "9.5 to 10 s: 3"),
        ("100.00", "10 to 10.5 s: 4"),
    ]
    assert chart.count("<i") == 21  # from 0 on, also where there is none
    assert marks(chart) == [("0.00", "0"), ("47.62", "5"), ("95.24", "10")]
    assert "0.5 s a bar; shortest 0.5 s, longest 10 s" in chart
    assert "<span>4</span><span>0</span>" in chart
    assert lengths(Counter()) == ""
    assert bars(lengths(Counter({0.0: 2}))) == [("100.00", "0 to 1 s: 2")]


def test_a_few_long_clips_do_not_squeeze_the_others() -> None:
    chart = lengths(Counter({10.0: 1000, 3000.0: 2, 4000.0: 3}))
    assert bars(chart) == [("100.00", "10 to 10.5 s: 1,000"), ("0.50", "10.5 s or longer: 5")]
    assert marks(chart)[-1][1] == "≥ 10.5"
    assert "longest 4000 s" in chart


def test_rates_that_are_common_and_all_others() -> None:
    values = Counter({25: 50, 29.97: 100, **dict.fromkeys(range(1, 10), 1)})
    chart = rates("Frame rate", "frames/s", values)
    rows = re.findall(r'<span>([^<]+)</span><u><i style="width:([\d.]+)%"></i></u><span>', chart)
    assert rows[:2] == [("1", "1.00"), ("2", "1.00")]
    assert rows[-3:] == [("25", "50.00"), ("29.97", "100.00"), ("3 others", "3.00")]
    assert len(rows) == 9
    assert "44,100" in rates("Sound", "Hz", Counter({44100: 1}))
    assert rates("Sound", "Hz", Counter()) == ""


# ---- the page ------------------------------------------------------------------------------


class Reader(HTMLParser):
    """Checks that tags are closed in order, and keeps what a browser would load or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.sources: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self.open else ""


def safe(page: str) -> Reader:
    """The page as read, which loads nothing and runs nothing."""
    reader = Reader(page)
    assert set(reader.tags) <= set(
        "html head meta title style body header h1 h2 h3 p div section span b i u small code em "
        "table thead tbody tr th td figure figcaption img dl dt dd".split()
    )
    assert all(source.startswith("data:image/jpeg;base64,") for source in reader.sources)
    assert reader.attributes <= set("lang charset name content class style title src alt".split())
    assert "url(" not in page
    assert "@import" not in page
    return reader


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder: four good clips, a still one, one without sound, three bad files."""
    source = tmp_path_factory.mktemp("in")
    for k in range(4):
        write_video(source / f"c{k}.mp4", 12 * (k + 1), first=100 * k, size=(96, 64))
    write_video(source / "mute.mp4", 12, sound=None, size=(96, 64))
    write_video(source / "two.mp4", 2, size=(96, 64))
    (source / f"{HOSTILE.replace('/', '')}.mp4").touch()
    for k in range(2):
        (source / f"text{k}.mp4").write_text("no video")
    out = tmp_path_factory.mktemp("out") / "out"
    assert run(PrepareFrames(source=str(source), out=str(out), shard_size=4, workers=2)) == 0
    return out


def test_what_the_page_shows(out: Path) -> None:
    page = (out / "summary.html").read_text()
    seen = safe(page)
    assert "9 clips through prepare-frames" in seen.text
    assert f"{HOSTILE} {HOSTILE}.mp4 is empty" in seen.text
    assert "text0" in seen.text
    for flag in ("no_audio", "duplicate_frames"):
        assert FLAGS[flag] in seen.text
    clips = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    facts = {row["id"]: row["facts"] for row in clips if row["facts"]}
    times = re.findall(r"<h3>c2</h3>.*?</div>", page)[0]
    expected = [f"{seconds:.3f} s" for seconds in facts["c2"]["frame_times"]]
    assert re.findall(r"<figcaption>([^<]+)<", times) == expected
    assert "<h3>c3</h3>" not in page  # three clips of each kind are enough
    assert seen.tags["img"] >= 4 * 5
    assert "1.1 to 1.2 s" not in page
    assert "short_side" in seen.text
    assert json.loads((out / "manifest.json").read_text())["fingerprint"] in seen.text
    assert str(out.parent) not in page


def test_pictures_are_those_of_the_clips(out: Path) -> None:
    import base64

    from tests.media import number_on

    page = (out / "summary.html").read_text()
    strip = re.findall(r"<h3>c2</h3>.*?</div>", page)[0]
    pictures = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", strip)]
    assert [number_on(picture) for picture in pictures] == [204, 213, 222, 231]


def collected(out: Path, order: random.Random) -> str:
    rows = [json.loads(line) for line in (out / "clips.jsonl").read_text().splitlines()]
    order.shuffle(rows)
    summary = Summary()
    for row in rows:
        summary.add(row)
    summary.write(out, json.loads((out / "manifest.json").read_text()))
    return (out / "summary.html").read_text()


def test_the_same_bytes_in_any_order(out: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(out, tmp_path / "out"))
    before = (out / "summary.html").read_text()
    for seed in range(3):
        assert collected(copy, random.Random(seed)) == before


def test_sound_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    wave = (tone(0.5, 22050) * 32000).astype(np.int16)
    soundfile.write(tmp_path / "in/a.wav", wave.T, 22050)
    run_audio(PrepareAudio(source=str(tmp_path / "in"), out=str(tmp_path / "out")))
    page = (tmp_path / "out/summary.html").read_text()
    seen = safe(page)
    assert "1 clip through prepare-audio" in seen.text
    assert "22,050" in seen.text
    assert "0.5 to 0.55 s: 1" in page
    assert "Frame" not in seen.text
    assert "none failed" in seen.text


def grain(seed: int) -> bytes:
    """A picture of noise, the largest JPEG there is."""
    noise = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(noise, 90))


def test_a_page_of_everything_stays_small(tmp_path: Path) -> None:
    """Every flag there is, hostile ids, endless errors, pictures of noise, one unreadable."""
    ids = [f"{HOSTILE}{k:03d}" + "x" * 400 * (k % 2) for k in range(40)]
    pictures = {f"{k}.jpg": grain(k) for k in range(8)}
    summary, flags = Summary(), [*FLAGS, HOSTILE]
    with write_shard(tmp_path, 0, "p") as writer:
        for clip_id in ids:
            found = {**pictures, "7.jpg": b"no picture"} if clip_id == ids[0] else pictures
            writer.add({"id": clip_id, "key": key_of(clip_id), "flags": flags}, found)
            facts = {"frame_times": list(range(8)), "bounds": [0, 10.0], "sound": None}
            row = {"id": clip_id, "status": "ok", "shard": shard_name(0), "flags": flags}
            summary.add({**row, "facts": facts})
            failed = {"id": clip_id, "status": "failed", "reason": HOSTILE}
            summary.add({**failed, "error": f"\x1b[31m{HOSTILE}" * 9999, "facts": None})
    manifest: dict[str, Any] = {"command": "prepare-frames", "num_frames": 8, "plan": "p"}
    counts: dict[str, Any] = {
        "clips": 80,
        "prepared": 40,
        "failed": 40,
        "shards": 1,
        "bytes": 10**9,
    }
    counts |= {"reasons": {HOSTILE: 40}, "flags": dict.fromkeys(flags, 40)}
    manifest |= {"fingerprint": "f", "settings": {HOSTILE: 1}, "versions": {}, "counts": counts}
    summary.write(tmp_path, manifest)
    page = (tmp_path / "summary.html").read_text()
    assert 400_000 < len(page) < 1_000_000
    seen = safe(page)
    assert HOSTILE in seen.text
    assert "not readable" in seen.text
    assert page.count("<h2>Frames: ") == len(flags)


def test_memory_is_bounded() -> None:
    """Two million clips of which no two are alike take no more room than a few thousand."""
    summary, chance = Summary(), random.Random(0)
    for k in range(40_000):
        facts = {"bounds": [0, chance.expovariate(0.1)], "video": {"fps": chance.uniform(1, 60)}}
        row = {"id": str(k), "shard": "shard-00000", "flags": ["still"] * (k % 2), "facts": facts}
        summary.add({**row, "status": "ok", "reason": None, "error": None})
        summary.add({"id": f"-{k}", "status": "failed", "reason": "x", "error": str(k)})
    assert sum(len(part) for part in vars(summary).values()) < 20_000
