"""Chapters of the report page that come from the numbers: headline, table, curves, times."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pivot.evaluation.figures import (
    curves_figure,
    overview_figure,
    per_class_figure,
    svg,
)
from pivot.evaluation.report.exhibits import Exhibits
from pivot.evaluation.report.markup import Safe, join, tag
from pivot.evaluation.report.wording import (
    COLUMNS,
    NAMES,
    THIN,
    Cell,
    Row,
    counts,
    headline,
    number,
    percent,
    scores,
    standard_error,
    table,
)
from pivot.evaluation.scaling.figure import scaling_figure

OWN_VIDEOS = """\
pivot prepare-frames VIDEOS --out shards
pivot measure-fbank shards
pivot pretrain-va shards --out runs/va --clip.model ViT-B-32 --clip.pretrained openai
pivot embed image shards --out stores/frames --clip.model ViT-B-32 --clip.pretrained openai
pivot mine-captions stores/frames captions.txt --out pairs.parquet
pivot train-at shards --model runs/va --pairs pairs.parquet --out runs/at
pivot evaluate runs/at TEST_SHARDS --out numbers
pivot search runs/at "a dog barks in the distance" SOUNDS
"""


def chapter(title: str, *children: str | None) -> Safe:
    """A chapter of the page."""
    return tag("section", tag("h2", title), *children)


def figure(drawing: str, caption: str) -> Safe:
    """A drawing (svg) above the words that explain it."""
    return tag("figure", Safe(drawing), tag("figcaption", caption))


def chapter_headline(results: Mapping[str, Any]) -> Safe:
    """The findings in words, beside a bar for each model."""
    values, chance = scores(results), number(results["chance"]) or 0.0
    trials = counts(results).get("zero_shot")
    errors = {key: standard_error(value, trials) for key, value in values.items()}
    words = ", ".join(f"{NAMES.get(key, key)} {percent(value)}" for key, value in values.items())
    bars = svg(overview_figure(values, NAMES, chance, errors),
               f"Zero-shot accuracy. {words}. Chance {percent(chance)}.")  # fmt: skip
    findings = tag("ul", *(tag("li", said) for said in headline(results)), class_="findings")
    caption = "Held-out sounds named through text alone. Hatched: CLIP on the frame, the ceiling."
    return chapter("What came out", tag("div", findings, figure(bars, caption), class_="glance"))


def chapter_table(results: Mapping[str, Any]) -> Safe:
    """THE table with its legend."""
    rows = [_table_row(row) for row in table(results)]
    top = tag("tr", tag("th", "Audio encoder", rowspan="2", scope="col", style="text-align:left"),
              tag("th", "Zero-", tag("br"), "shot", rowspan="2", scope="col"),
              tag("th", "Sound → text", colspan="2", scope="colgroup"),
              tag("th", "Text → sound", colspan="2", scope="colgroup"))  # fmt: skip
    low = tag("tr", *(tag("th", f"R@{k.lstrip('r')}", scope="col") for _, k in COLUMNS))
    body = tag("table", tag("caption", _test_set(results)), tag("thead", top, low),
               tag("tbody", *rows), class_="main")  # fmt: skip
    legend = (
        "In percent. Bold: best. Underlined: best without true captions. R@k: a right answer is "
        "among the first k. "
    )
    if counts(results):
        legend += (
            "±: one standard error from the number of test items; what another seed's training "
            "would change comes on top."
        )
    notes = [tag("p", str(note), class_="note") for note in results.get("notes") or ()]
    box = tag("div", body, class_="scroll", role="region", tabindex="0", aria_label="Results")
    pivotal = _pivotability(results.get("pivotability"))
    return chapter("The table", box, tag("p", legend, class_="note"), pivotal, *notes)


def _table_row(row: Row) -> Safe:
    head = tag("th", row.name, tag("small", row.learned), scope="row")
    aside = "aside" if row.key in {"chance", "clip_image"} else None
    return tag("tr", head, *(_cell(cell) for cell in row.cells), class_=aside)


def _cell(cell: Cell) -> Safe:
    if cell.value is None:
        return tag("td", "–")
    text: str = f"{100 * cell.value:.1f}"
    if cell.best_unpaired:
        text = tag("u", text)
    if cell.best:
        text = tag("strong", text)
    error = None if cell.error is None else tag("small", f"±{THIN}{100 * cell.error:.1f}")
    return tag("td", text, error)


def _test_set(results: Mapping[str, Any]) -> str:
    n = counts(results)
    parts = []
    if "zero_shot" in n:
        parts.append(f"zero-shot on {n['zero_shot']:,.0f} held-out clips")
    if {"retrieval_clips", "retrieval_captions"} <= set(n):
        parts.append(
            f"retrieval on {n['retrieval_clips']:,.0f} held-out clips with "
            f"{n['retrieval_captions']:,.0f} captions"
        )
    text = "; ".join(parts) or "measured on held-out clips"
    return text[0].upper() + text[1:] + "."


def _pivotability(value: object) -> Safe | None:
    """One line, from a number or from numbers by model."""
    said = "Pivotability (how many of a clip's own captions its nearest images lead to): "
    if isinstance(value, Mapping):
        known = {key: number(v) for key, v in value.items()}
        parts = [f"{NAMES.get(k, k)} {percent(v)}" for k, v in known.items() if v is not None]
        return tag("p", f"{said}{', '.join(parts)}.", class_="note") if parts else None
    single = number(value)
    return None if single is None else tag("p", f"{said}{percent(single)}.", class_="note")


def chapter_training(exhibits: Exhibits) -> Safe | None:
    """Losses of the two stages and the learnt scale, as curves."""
    runs = {run: rows for run, rows in exhibits.curves.items() if rows}
    second = {run: rows for run, rows in runs.items() if run.startswith(("at", "vat"))}
    first = {run: rows for run, rows in runs.items() if run not in second}
    both = any(run.startswith("vat") for run in second)
    tuned = "AT: sounds and captions" + (" (of VAT: the sum of two terms)" if both else "")
    drawings = []
    for some, about in ((first, "VA: frames and sounds"), (second, tuned)):
        if some:
            said = f"Loss of {about}."
            alt = f"{said} {_ends(some)}"
            drawings.append(figure(svg(curves_figure(some, NAMES), alt), said))
    scaled = {run: rows for run, rows in runs.items() if any(_has_scale(row) for row in rows)}
    if scaled:
        said = "The learnt scale of the cosines (one over the temperature)."
        drawings.append(figure(svg(curves_figure(scaled, NAMES, "scale"), said), said))
    if not drawings:
        return None
    return chapter("Training", tag("div", *drawings, class_="figures"))


def _has_scale(row: Mapping[str, Any]) -> bool:
    return number(row.get("scale")) is not None


def _ends(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    parts = []
    for run, rows in runs.items():
        values = [v for row in rows if (v := number(row.get("loss"))) is not None]
        name = NAMES.get(run, run)
        parts.append(f"{name}: {values[0]:.2f} to {values[-1]:.2f}" if values else f"{name}: none")
    return "; ".join(parts) + "."


def chapter_scaling(results: Mapping[str, Any]) -> Safe | None:
    """Accuracy against true pairs, with the line, its band and what the line says."""
    points, fit = _scaling(results)
    if not points:
        return None
    chance, va = number(results["chance"]), scores(results).get("va")
    drawn = scaling_figure(points, fit, number(fit.get("target")), chance=chance, start=va)
    pairs = sorted({point["pairs"] for point in points})
    ends = [
        percent(sum(same) / len(same))
        for size in (pairs[0], pairs[-1])
        for same in [[float(p["zero_shot"]) for p in points if p["pairs"] == size]]
    ]
    alt = (
        f"Zero-shot accuracy against true pairs: {ends[0]} with {pairs[0]:,} and {ends[1]} with "
        f"{pairs[-1]:,} pairs."
    )
    slope = number(fit.get("slope"))
    said = alt if slope is None else (
        f"{alt} Each doubling of the pairs changes the accuracy by {100 * slope:+.1f} points "
        "(straight line through all trainings; the band is the line's uncertainty)."
    )  # fmt: skip
    what = (
        "How much true supervision is worth: the VA encoder fine-tuned on more and more clips "
        "with their own captions."
    )
    words = tag("div", tag("p", what), tag("p", said))
    return chapter(
        "The scaling curve",
        tag("div", words, tag("figure", Safe(svg(drawn, alt))), class_="glance"),
    )


def _scaling(results: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """Points and fit, from `scaling` as a list beside `fit`, or as {points, fit}."""
    scaling = results.get("scaling") or []
    fit = results.get("fit") or results.get("scaling_fit")
    if isinstance(scaling, Mapping):
        fit, scaling = scaling.get("fit") or fit, scaling.get("points") or []
    usable = [
        p for p in scaling if number(p.get("pairs")) and number(p.get("zero_shot")) is not None
    ]
    return usable, fit or {}


def chapter_classes(results: Mapping[str, Any], exhibits: Exhibits) -> Safe | None:
    """A bar for each class and model, the classes that gained most first."""
    chosen = {k: exhibits.per_class[k] for k in ("va", "at_ac", "at_gc") if k in exhibits.per_class}
    chosen = chosen or dict(list(exhibits.per_class.items())[:3])
    seen = {label for accuracy in chosen.values() for label in accuracy}
    labels = [x for x in exhibits.labels if x in seen] or sorted(seen)
    if not labels:
        return None
    first = next(iter(chosen.values()))
    labels.sort(key=lambda label: -first.get(label, 0.0))
    half = -(-len(labels) // 2) if len(labels) > 8 else len(labels)
    drawings = []
    for part in (labels[:half], labels[half:]):
        if part:
            alt = "Zero-shot accuracy by class. " + "; ".join(
                f"{label}: "
                + ", ".join(
                    f"{NAMES.get(k, k)} {percent(a[label])}"
                    for k, a in chosen.items()
                    if label in a
                )
                for label in part
            )
            drawn = per_class_figure(chosen, part, NAMES, number(results["chance"]))
            drawings.append(tag("figure", Safe(svg(drawn, alt))))
    what = (
        f"How often the sounds of each class are named right; best with "
        f"{NAMES.get(next(iter(chosen)), next(iter(chosen)))} first. Dotted: chance."
    )
    return chapter("Class by class", tag("p", what), tag("div", *drawings, class_="pairs"))


def chapter_seconds(results: Mapping[str, Any]) -> Safe | None:
    """Seconds of each stage with a bar."""
    stages = results.get("seconds")
    if not isinstance(stages, Mapping):
        return None
    known = {k: v for k, value in stages.items() if (v := number(value)) is not None}
    total = known.pop("total", None) or sum(known.values())
    if not known:
        return None
    longest = max(known.values()) or 1.0
    rows = [
        tag("tr", tag("th", name.replace("_", " "), scope="row"), tag("td", f"{value:,.1f}"),
            tag("td", tag("i", style=f"width:{100 * max(value, 0) / longest:.1f}%")))
        for name, value in known.items()
    ]  # fmt: skip
    said = f"{total:,.0f} seconds in all ({total / 60:.1f} minutes)."
    body = tag("table", tag("caption", said), tag("tbody", *rows), class_="stages")
    return chapter("Seconds per stage", tag("div", body, class_="scroll"))


def chapter_own_videos() -> Safe:
    """The commands that do all of this with the reader's videos."""
    what = (
        "The same commands made this page. VIDEOS is a folder of video files, captions.txt one "
        "sentence a line (nobody needs to have listened), TEST_SHARDS clips with labels or "
        "captions that you kept aside."
    )
    return chapter("The same with your own videos", tag("p", what), tag("pre", OWN_VIDEOS))


def chapter_settings(results: Mapping[str, Any]) -> Safe:
    """Seed, versions and settings, folded away."""
    parts = [tag("p", f"Seed {results.get('seed', 'not recorded')}.", class_="quiet")]
    for key in ("versions", "settings"):
        if results.get(key):
            text = json.dumps(results[key], indent=1, ensure_ascii=False, default=str)
            parts.append(tag("details", tag("summary", key.capitalize()), tag("pre", text)))
    return chapter("Settings and versions", join(parts))
