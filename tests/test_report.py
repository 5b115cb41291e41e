"""The report page: one file, true to the numbers, safe with any text, whole with parts missing."""

import copy
import io
import json
import math
import re
import shlex
import wave
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pivot import config
from pivot.cli import COMMANDS
from pivot.errors import DataError
from pivot.evaluation.figures import (
    curves_figure,
    overview_figure,
    per_class_figure,
    save,
    svg,
)
from pivot.evaluation.report.chapters import OWN_VIDEOS
from pivot.evaluation.report.markup import Safe, tag
from pivot.evaluation.report.page import ClipExhibit, Exhibits, write_report
from pivot.evaluation.report.similarity import (
    cosines,
    heat_figure,
    map_figure,
    named_right,
    principal_axes,
    seriate,
    spread_out,
)
from pivot.evaluation.report.wording import headline, table
from pivot.evaluation.scaling.figure import scaling_figure
from video_prep.errors import UserError

LABELS = re.findall(
    r"\w+",
    "bell siren drum kettle clock gong saw fan phone piano dog cat bird frog cow bee snake car "
    "horn robot cloud fountain ball rocket",
)
ZERO_SHOT = {
    "va_random_init": 0.463,
    "va": 0.487,
    "at_rc": 0.053,
    "at_vc": 0.527,
    "at_fc": 0.503,
    "at_ac": 0.623,
    "at_gc": 0.873,
}


def make_results() -> dict[str, Any]:
    """results.json as the demo writes it, with the numbers of the prototype."""
    retrieval = {
        key: {
            "audio_to_text": {"r1": 0.2 * value, "r10": 0.75 * value},
            "text_to_audio": {"r1": 0.18 * value, "r10": 0.85 * value},
        }
        for key, value in ZERO_SHOT.items()
    }
    points = [
        {"pairs": 12 * 2**i, "zero_shot": 0.45 + 0.055 * i + 0.01 * seed, "seed": seed}
        for i in range(8)
        for seed in (-1, 0, 1)
    ]
    x = [12 * 2**i for i in range(8)]
    line = [0.45 + 0.055 * i for i in range(8)]
    slope = 0.055
    return {
        "seed": 1,
        "clips": {"made": 2100, "prepared": 2098, "failed": 2},
        "chance": 1 / 24,
        "zero_shot": dict(ZERO_SHOT),
        "retrieval": retrieval,
        "clip_image_zero_shot": 0.443,
        "counts": {"zero_shot": 480, "retrieval_clips": 300, "retrieval_captions": 1500},
        "pivotability": {"va": 0.123, "at_ac": 0.102},
        "scaling": points,
        "fit": {
            "intercept": 0.45 - slope * math.log2(12),
            "slope": slope,
            "band": {"pairs": x, "low": [y - 0.03 for y in line], "high": [y + 0.03 for y in line]},
        },
        "seconds": {"make_clips": 61.2, "prepare-frames": 24.0, "pretrain-va": 75.4, "report": 4.1},
        "settings": {"out": "demo", "fast": False, "seed": 1},
        "versions": {"pivot": "0.1.0", "python": "3.11.2"},
    }


def picture(seed: int) -> bytes:
    """A JPEG of a disk on a pale ground."""
    rng = np.random.default_rng([seed, 1])
    y, x = np.mgrid[:128, :128]
    disk = (x - rng.integers(40, 90)) ** 2 + (y - rng.integers(40, 90)) ** 2 < 30**2
    pixels = np.where(disk[..., None], rng.integers(0, 200, 3), rng.integers(200, 255, 3))
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def tone(hertz: float) -> bytes:
    """Two seconds of a decaying tone as WAV."""
    t = np.arange(32000) / 16000
    samples = (8000 * np.sin(2 * np.pi * hertz * t) * np.exp(-3 * (t % 0.5))).astype("<i2")
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        file.writeframes(samples.tobytes())
    return buffer.getvalue()


def make_clip(number: int) -> ClipExhibit:
    label = LABELS[number]
    own = tuple(
        f"a {how} {label} sounds {place}"
        for how in ("high", "low")
        for place in ("twice", "by the sea")
    )
    others = [(0.31, "a drum beats slowly, then a dog barks"), (0.29, f"a {label} far away")]
    return ClipExhibit(
        id=f"test-{number:05d}",
        label=label,
        captions=own,
        frames=tuple(picture(4 * number + k) for k in range(4)),
        sound=tone(200 + 90 * number),
        before=(*others, (0.28, "a kettle whistles in the night")),
        after=((0.62, own[0]), (0.57, own[2]), *others),
    )


def make_exhibits(clips: int = 8) -> Exhibits:
    """Arrays as a journey makes them: shared looks in pairs, words and images a gap apart."""
    rng = np.random.default_rng([7, 1])
    n, d = len(LABELS), 64
    looks = rng.normal(size=(n, d))
    looks[1:16:2] = 0.75 * looks[0:16:2] + 0.45 * looks[1:16:2]
    gap = 6 * rng.normal(size=(3, d))
    image, text, audio = (looks + g + 0.5 * rng.normal(size=(n, d)) for g in gap)
    of = np.repeat(np.arange(n), 10)
    spread = 0.9 * rng.normal(size=(2, len(of), d))
    rows = {
        run: [
            {"step": 10 * i, "loss": low + 4 * math.exp(-i / 9), "scale": 14.3 + 0.2 * i}
            for i in range(30)
        ]
        for run, low in zip(ZERO_SHOT, (5.1, 4.9, 7.6, 5.5, 5.6, 5.2, 4.4), strict=True)
    }
    clamp = {
        key: dict(zip(LABELS, np.clip(rng.normal(score, 0.25, n), 0, 1).tolist(), strict=True))
        for key, score in ZERO_SHOT.items()
    }
    return Exhibits(
        curves=rows,
        per_class=clamp,
        labels=tuple(LABELS),
        image=image,
        audio=audio,
        text=text,
        audio_before=rng.normal(size=(1, d)) + 0.15 * rng.normal(size=(n, d)),
        points={"image": image[of] + spread[0], "audio": audio[of] + spread[1]},
        point_labels=of,
        clips=tuple(make_clip(i) for i in range(clips)),
    )


class Reader(HTMLParser):
    """Collects elements and checks that each one that opens also closes, in order."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        if tag not in {"meta", "br", "img"}:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(path, make_results(), make_exhibits())
    return path.read_text(encoding="utf-8")


def render(tmp_path: Path, results: dict[str, Any], exhibits: Exhibits | None = None) -> Reader:
    write_report(tmp_path / "report.html", results, exhibits or Exhibits())
    return Reader((tmp_path / "report.html").read_text(encoding="utf-8"))


def test_page_is_one_small_file_without_network(written: str) -> None:
    assert len(written.encode()) < 6_000_000
    page = Reader(written)
    for name, attributes in page.elements:
        for key in ("src", "href", "xlink:href", "action", "data", "poster", "srcset"):
            value = attributes.get(key, "data:")
            assert value.startswith(("data:", "#")), f"<{name} {key}={value[:60]}>"
    assert not {"script", "link", "iframe", "object"} & {name for name, _ in page.elements}
    assert not re.search(r"url\((?!#)|@import", written)


def test_page_is_well_formed(written: str) -> None:
    page = Reader(written)
    assert written.startswith("<!doctype html>")
    ids = [a["id"] for _, a in page.elements if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["alt"] != "" for n, a in page.elements if n == "img"} == {True}
    drawings = [a for n, a in page.elements if n == "svg"]
    assert len(drawings) >= 12
    assert all(a["role"] == "img" and len(a["aria-label"]) > 20 for a in drawings)
    wanted = {i for _, a in page.elements for i in re.findall(r"url\(#(.+?)\)", str(a))}
    wanted |= {a["xlink:href"][1:] for n, a in page.elements if n == "use"}
    assert wanted <= set(ids)


def test_page_follows_the_theme(written: str) -> None:
    assert "prefers-color-scheme: dark" in written
    drawings = "".join(re.findall(r"<svg.*?</svg>", written, re.S))
    assert "var(--ink)" in drawings
    assert not re.search("#1d2433|#5c6575|#d5dae2|#fefefe", drawings)


def test_the_same_numbers_give_the_same_bytes(written: str, tmp_path: Path) -> None:
    write_report(tmp_path / "again.html", make_results(), make_exhibits())
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == written


def test_page_says_the_numbers(written: str) -> None:
    text = Reader(written).text.replace("\u202f", " ")
    for part in (
        "2,100 videos made, 2,098 prepared, 2 failed",
        "names 48.7 % of the held-out sounds: 11.7 times chance (4.2 %)",
        "Captions mined for what one hears add 13.6 points (62.3 %)",
        "Random captions do not help: 5.3 %",
        "True captions are best by far: 87.3 %",
        "Each doubling of the pairs changes the accuracy by +5.5 points",
        "Pivotability (how many of a clip's own captions its nearest images lead to): VA 12.3 %",
        "165 seconds in all",
        "pivot prepare-frames VIDEOS",
        "its own",
    ):
        assert part in text, part


def test_text_is_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'&<img src=x onerror=alert(1)>$x^2$"
    results = make_results()
    results["zero_shot"][evil] = 0.5
    results["seconds"][evil] = 1.0
    results["settings"] = {evil: evil}
    results["notes"] = [evil]
    results["pivotability"] = {evil: 0.1}
    labels = (evil, "b")
    square = np.eye(2)
    exhibits = Exhibits(
        curves={evil: [{"step": 0, "loss": 1.0}]},
        per_class={"va": {evil: 0.5}},
        labels=labels,
        image=square, audio=square, text=square,
        clips=(ClipExhibit(evil, evil, (evil,), (picture(1),), b"", ((0.5, evil),), ()),),
    )  # fmt: skip
    page = render(tmp_path, results, exhibits)
    assert "script" not in {name for name, _ in page.elements}
    assert all(not key.startswith("on") for _, a in page.elements for key in a)
    assert page.text.count("<script>alert(1)</script>") >= 8


def test_only_the_needed_parts_are_needed(tmp_path: Path) -> None:
    page = render(tmp_path, {"chance": 0.05, "zero_shot": {"va": 0.487}})
    assert "9.7 times chance" in page.text.replace("\u202f", " ")
    assert "Listen" not in page.text and "scaling" not in page.text


@pytest.mark.parametrize("missing", sorted(set(make_results()) - {"chance", "zero_shot"}))
def test_any_other_part_may_be_missing(missing: str, tmp_path: Path) -> None:
    results = make_results()
    del results[missing]
    render(tmp_path, results)


@pytest.mark.parametrize("value", [None, math.nan, "much", [], {}])
def test_odd_values_are_left_out(value: Any, tmp_path: Path) -> None:
    results = make_results()
    for key in set(results) - {"chance", "zero_shot", "seed"}:
        odd = copy.deepcopy(results) | {key: value}
        if key == "scaling" and isinstance(value, str | float):
            continue
        if isinstance(value, str | float) and key in {"retrieval", "counts", "fit"}:
            continue
        write_report(tmp_path / f"{key}.html", odd, Exhibits())
    results["zero_shot"]["va"] = value
    assert "Captions mined" not in render(tmp_path, results).text


@pytest.mark.parametrize(
    "results", [{}, {"chance": 0.05}, {"zero_shot": {"va": 0.5}, "chance": None}]
)
def test_results_without_numbers_are_refused(results: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no zero_shot or no chance"):
        write_report(tmp_path / "report.html", results, Exhibits())
    assert not list(tmp_path.iterdir())


def test_exhibits_that_do_not_agree_are_refused() -> None:
    with pytest.raises(ValueError, match="image has 3 rows for 2 labels"):
        Exhibits(labels=("a", "b"), image=np.eye(3))
    with pytest.raises(ValueError, match="4 rows for 3 point_labels"):
        Exhibits(points={"image": np.eye(4)}, point_labels=np.arange(3))


def test_a_page_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match="cannot write"):
        write_report(tmp_path / "report.html", make_results(), Exhibits())
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# ---- words ---------------------------------------------------------------------------------


def said(**scores: float) -> str:
    results = make_results()
    results["zero_shot"] |= scores
    return " ".join(headline(results)).replace("\u202f", " ")


def test_headline_is_honest_when_the_numbers_are_poor() -> None:
    assert "less than the 6 times" in said(va=0.2)
    assert "no better than chance (4.2 %). The pivot did not work here." in said(va=0.04)
    assert "cost 18.7 points (30.0 %)." in said(at_ac=0.30)
    assert "too little to call a change" in said(at_ac=0.50)
    assert "Random captions help too (60.0 %)" in said(at_rc=0.60)
    assert "not clearly more than the best without them" in said(at_gc=0.63)
    assert "VA is above that" in said(va=0.60)
    assert "Starting from CLIP's weights hurts" in said(va_random_init=0.70)


def test_table_marks_the_best_with_and_without_true_captions() -> None:
    rows = {row.key: row.cells for row in table(make_results())}
    assert list(rows)[:2] == ["chance", "clip_image"]
    assert [key for key, cells in rows.items() if cells[0].best] == ["at_gc"]
    assert [key for key, cells in rows.items() if cells[0].best_unpaired] == ["at_ac"]
    assert rows["va"][0].error == pytest.approx(math.sqrt(0.487 * 0.513 / 480))
    assert rows["va"][4].error == pytest.approx(math.sqrt(0.41395 * 0.58605 / 1500), rel=1e-3)


def test_chance_of_retrieval_by_hand() -> None:
    """300 clips with 5 captions each."""
    cells = {row.key: row.cells for row in table(make_results())}["chance"]
    by_hand = 1 - math.comb(1495, 10) / math.comb(1500, 10)
    values = [cell.value for cell in cells]
    assert values == pytest.approx([1 / 24, 1 / 300, by_hand, 1 / 300, 10 / 300])


@pytest.mark.parametrize("line", OWN_VIDEOS.splitlines())
def test_own_video_commands_are_understood(line: str) -> None:
    """Every command that the page recommends parses as it stands there."""
    program, name, *arguments = shlex.split(line)
    module, _, settings = COMMANDS[name].settings.partition(":")
    kind = getattr(import_module(module), settings)
    assert program == "pivot"
    assert isinstance(config.load(kind, arguments, f"pivot {name}"), kind)


# ---- figures -------------------------------------------------------------------------------


def test_scaling_figure_takes_what_there_is(tmp_path: Path) -> None:
    results = make_results()
    for fit in (None, {}, {"intercept": math.nan, "slope": 1.0}, results["fit"]):
        for target in (None, 0.2, 0.9, 1e9):
            save(scaling_figure(results["scaling"], fit, target), tmp_path / "a.svg")
    save(scaling_figure(results["scaling"][:1], results["fit"], 0.5), tmp_path / "a.png")
    save(scaling_figure([], None), tmp_path / "a.pdf")
    assert {p.name for p in tmp_path.iterdir()} == {"a.svg", "a.png", "a.pdf"}


def test_scaling_figure_marks_the_pairs_for_a_target() -> None:
    results = make_results()
    # 0.45 + 0.055 * 9 = 0.945 is reached at 12 * 2^9 pairs, beyond the last point.
    text = svg(scaling_figure(results["scaling"], results["fit"], 0.945), "a curve")
    assert "target: 6,144 pairs" in text
    assert (
        "pairs" not in svg(scaling_figure([], results["fit"], 0.945), "a").split("target:")[-1][:9]
    )


def test_figures_take_odd_input() -> None:
    gaps: list[dict[str, Any]] = [{"step": 1, "loss": math.nan}, {"loss": None}, {}]
    svg(curves_figure({"va": gaps, "one": [{"step": 3, "loss": 2}], "none": []}, {}), "x")
    svg(overview_figure({"va": 0.0}, {}, 0.0, {}), "x")
    svg(per_class_figure({"va": {"猫": 0.5}}, ["猫", "never heard"], {}), "x")
    many = [f"class {i}" for i in range(60)]
    square = np.random.default_rng(0).normal(size=(60, 8))
    svg(heat_figure(cosines(square, square), many, "a", "b"), "x")
    svg(map_figure(dict.fromkeys(("image", "audio", "text"), square), many), "x")
    line = np.ones((1, 1))
    svg(map_figure(dict.fromkeys(("image", "audio", "text"), line), ["one"]), "x")


def test_similarity_by_hand() -> None:
    a = np.array([[2.0, 0.0], [0.0, 0.0], [3.0, 3.0]])
    b = np.array([[1.0, 0.0], [0.0, 5.0]])
    r = math.sqrt(0.5)
    np.testing.assert_allclose(cosines(a, b), [[1, 0], [0, 0], [r, r]], atol=1e-12)
    assert named_right(np.array([[1.0, 0.0], [0.6, 0.5]])) == 1
    order = seriate(np.array([[1.0, 0.0], [-1.0, 0.1], [0.9, 0.1], [-1.0, 0.0]]))
    assert order == [0, 2, 1, 3] or order == [0, 2, 3, 1]


def test_principal_axes_of_a_line() -> None:
    x = np.outer([-2.0, -1.0, 0.0, 3.0], [0.6, -0.8, 0.0])
    axes, share = principal_axes(x)
    np.testing.assert_allclose(axes[:, 0], [-0.6, 0.8, 0.0], atol=1e-12)
    np.testing.assert_allclose(share, [1, 0], atol=1e-12)


def test_words_give_way() -> None:
    boxes = spread_out(np.array([[0.0, 0.0], [0.1, 0.01], [9.0, 0.0]]), [1.0, 1.0, 1.0], 0.2)
    assert abs(boxes[0, 1] - boxes[1, 1]) >= 0.2 - 1e-6
    assert boxes[2].tolist() == [9.0, 0.0]


def test_elements_escape_what_they_hold() -> None:
    made = tag("p", "<b>", Safe("<i></i>"), None, class_='"', title="&")
    assert made == '<p class="&quot;" title="&amp;">&lt;b&gt;<i></i></p>'
    assert json.dumps(made)  # still a plain string


@pytest.mark.parametrize(
    ("longer", "said"),
    [(0.50, "20.0 points are owed to the captions"), (0.69, "does most of that"),
     (0.90, "cost points against simply training longer")],
)  # fmt: skip
def test_gain_of_captions_is_held_against_longer_training(longer: float, said: str) -> None:
    zero_shot = {"va": 0.4, "va_long": longer, "at_ac": 0.7}
    lines = headline({"chance": 0.05, "zero_shot": zero_shot, "counts": {"zero_shot": 480}})
    assert any(said in line.replace("\u202f", " ") for line in lines), lines
