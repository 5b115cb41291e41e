"""What the numbers of results.json say in plain words: names of models, table rows, headline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

THIN = "\u202f"  # narrow space before a percent sign, where no line may break

# Key in results.json -> (name, what it learned from). The order is the order of the table.
MODELS = {
    "clip_image": ("CLIP on the frame", "sees the picture, hears nothing: the pivot's ceiling"),
    "untrained": ("Untrained encoder", "nothing yet"),
    "va_random_init": ("VA, random start", "frames and their sounds, from random weights"),
    "va": ("VA", "frames and their sounds; no audio-text pair"),
    "va_long": ("VA, longer", "the same, for as many steps as VA and fine-tuning together"),
    "at_rc": ("VA + random captions", "captions drawn by lot (RC)"),
    "at_vc": ("VA + mined: seen", "mined captions of what one sees (VC)"),
    "at_fc": ("VA + mined: free", "mined captions that a language model wrote (FC)"),
    "at_ac": ("VA + mined: heard", "mined captions of what one hears (AC)"),
    "vat_ac": (
        "VAT: heard",
        "VA, then frames and the same mined captions at once, a scale for each",
    ),
    "at_gc": ("VA + true captions", "the clips' own captions (GC), as a person would buy them"),
}
NAMES = {key: name for key, (name, _) in MODELS.items()}
COLUMNS = (
    ("audio_to_text", "r1"),
    ("audio_to_text", "r10"),
    ("text_to_audio", "r1"),
    ("text_to_audio", "r10"),
)
NO_MODEL = {"clip_image", "chance"}  # rows that no column counts as its best
WITHOUT_COUNT = 0.03  # smallest difference called real when the number of test clips is not known


@dataclass(frozen=True)
class Cell:
    """A number of the table with its standard error; best of all, or best without true captions."""

    value: float | None
    error: float | None = None
    best: bool = False
    best_unpaired: bool = False


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    key: str
    name: str
    learned: str
    cells: tuple[Cell, ...]


def number(value: object) -> float | None:
    """The value as a float, or None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def percent(value: float) -> str:
    """0.4871 -> 48.7 %."""
    return f"{100 * value:.1f}{THIN}%"


def standard_error(share: float | None, count: float | None) -> float | None:
    """Standard error of a share among `count` independent trials: sqrt(p (1 - p) / n)."""
    if share is None or not count or not 0 <= share <= 1:
        return None
    return math.sqrt(share * (1 - share) / count)


def scores(results: Mapping[str, Any]) -> dict[str, float]:
    """Zero-shot accuracy of every model in the order of the table; models of other names last."""
    found = {**results["zero_shot"], "clip_image": results.get("clip_image_zero_shot")}
    order = [*MODELS, *(key for key in found if key not in MODELS)]
    values = {key: number(found.get(key)) for key in order}
    return {key: value for key, value in values.items() if value is not None}


def counts(results: Mapping[str, Any]) -> dict[str, float]:
    """How many test clips and captions the numbers rest on, where results.json says so.

    Keys: zero_shot (clips), retrieval_clips, retrieval_captions.
    """
    known = results.get("counts") or {}
    return {key: n for key in known if (n := number(known[key])) is not None and n > 0}


def table(results: Mapping[str, Any]) -> list[Row]:
    """THE table: chance, CLIP on the frame, and every encoder; columns zero-shot and four R@k."""
    n = counts(results)
    clips, captions = n.get("retrieval_clips"), n.get("retrieval_captions")
    trials = [n.get("zero_shot"), clips, clips, captions, captions]
    retrieval = results.get("retrieval") or {}
    values: dict[str, list[float | None]] = {"chance": chance_row(results)}
    for key, score in scores(results).items():
        own = retrieval.get(key) or {}
        recalls = [number((own.get(way) or {}).get(k)) for way, k in COLUMNS]
        values[key] = [score, *recalls]
    best, unpaired = _best(values, set()), _best(values, {"at_gc"})
    rows = []
    for key, line in values.items():
        name, learned = ("Chance", "guessing") if key == "chance" else MODELS.get(key, (key, ""))
        drawn = [None] * len(line) if key == "chance" else trials  # chance is exact
        errors = [standard_error(x, m) for x, m in zip(line, drawn, strict=True)]
        cells = tuple(
            Cell(x, errors[i], (key, i) in best, (key, i) in unpaired) for i, x in enumerate(line)
        )
        rows.append(Row(key, name, learned, cells))
    return rows


def _best(values: Mapping[str, list[float | None]], without: set[str]) -> set[tuple[str, int]]:
    """(model, column) of the largest value of each column; several where they are equal."""
    found = set()
    for column in range(1 + len(COLUMNS)):
        known = {
            key: value
            for key, line in values.items()
            if key not in NO_MODEL | without and (value := line[column]) is not None
        }
        top = max(known.values(), default=None)
        found |= {(key, column) for key, value in known.items() if value == top}
    return found


def chance_row(results: Mapping[str, Any]) -> list[float | None]:
    """Chance of every column; that of a retrieval column only where the counts are known.

    A->T: at least one of a clip's c captions among k of n drawn without putting back. T->A: k / n.
    """
    n = counts(results)
    clips, captions = n.get("retrieval_clips"), n.get("retrieval_captions")
    line: list[float | None] = [number(results["chance"]), None, None, None, None]
    if clips and captions:
        own = captions / clips
        for column, k in ((1, 1), (2, 10)):
            missed = math.prod(
                max(0.0, 1 - own / (captions - i)) for i in range(min(k, int(captions)))
            )
            line[column] = 1 - missed
        line[3], line[4] = 1 / clips, min(1.0, 10 / clips)
    return line


def clear(results: Mapping[str, Any], a: float, b: float) -> bool:
    """Whether two accuracies differ by more than two standard errors of their difference."""
    n = counts(results).get("zero_shot")
    errors = standard_error(a, n), standard_error(b, n)
    if errors[0] is None or errors[1] is None:
        return abs(a - b) >= WITHOUT_COUNT
    return abs(a - b) > 2 * math.hypot(errors[0], errors[1])


def headline(results: Mapping[str, Any]) -> list[str]:
    """The findings, one sentence each, as good or as poor as the numbers are."""
    score, chance = scores(results), number(results["chance"]) or 0.0
    makers = (_say_va, _say_ceiling, _say_heard, _say_longer, _say_both, _say_manners,
              _say_search, _say_random, _say_gold, _say_start)  # fmt: skip
    said = [maker(results, score, chance) for maker in makers]
    return [sentence for sentence in said if sentence]


def times_chance(value: float, chance: float) -> str:
    """How many times chance a score is, in words."""
    return f"{value / chance:.1f} times chance" if chance > 0 else "with chance unknown"


def _say_va(results: Mapping[str, Any], score: Mapping[str, float], chance: float) -> str:
    va = score.get("va")
    if va is None:
        return ""
    start = (
        "Without a single audio-text pair, the encoder that learned from video frames (VA) names "
        f"{percent(va)} of the held-out sounds"
    )
    if not clear(results, va, chance) or va < chance:
        return f"{start}: no better than chance ({percent(chance)}). The pivot did not work here."
    short = " This is less than the 6 times that the demo aims at." if va < 6 * chance else ""
    return f"{start}: {times_chance(va, chance)} ({percent(chance)}).{short}"


def _say_ceiling(results: Mapping[str, Any], score: Mapping[str, float], _: float) -> str:
    clip, va = score.get("clip_image"), score.get("va")
    if clip is None or va is None:
        return ""
    level = "level with" if not clear(results, va, clip) else "above" if va > clip else "below"
    return (
        f"CLIP itself, looking at the frame, gets {percent(clip)}, because some things look alike "
        f"and sound different. VA is {level} that."
    )


def _say_heard(results: Mapping[str, Any], score: Mapping[str, float], _: float) -> str:
    return _compared(results, score, "at_ac", "va", "Captions mined for what one hears")


def _say_longer(results: Mapping[str, Any], score: Mapping[str, float], _: float) -> str:
    """What of the gain is owed to the captions, and what to the longer training."""
    ac, longer = score.get("at_ac"), score.get("va_long")
    if ac is None or longer is None:
        return ""
    told = f"VA alone, trained for as many steps, reaches {percent(longer)}"
    if not clear(results, ac, longer):
        return f"{told}: on single sounds the longer training does most of that."
    if ac < longer:
        return f"{told}: the captions cost points against simply training longer."
    return f"{told}: {100 * (ac - longer):.1f} points are owed to the captions."


def _say_both(results: Mapping[str, Any], score: Mapping[str, float], _: float) -> str:
    """Frames and captions at once, against captions after frames."""
    both, after = score.get("vat_ac"), score.get("at_ac")
    if both is None or after is None:
        return ""
    told = f"Frames and captions trained at once (VAT) reach {percent(both)}"
    if not clear(results, both, after):
        return f"{told}, no different from captions after frames ({percent(after)})."
    way = "more" if both > after else "less"
    return f"{told}, {way} than captions after frames ({percent(after)})."


def _compared(
    results: Mapping[str, Any], score: Mapping[str, float], key: str, base: str, what: str
) -> str:
    new, old = score.get(key), score.get(base)
    if new is None or old is None:
        return ""
    verb = "add" if new >= old else "cost"
    change = f"{what} {verb} {100 * abs(new - old):.1f} points ({percent(new)})"
    return f"{change}." if clear(results, new, old) else f"{change}: too little to call a change."


def _say_manners(results: Mapping[str, Any], score: Mapping[str, float], _: float) -> str:
    seen = _compared(results, score, "at_vc", "va", "Captions of what one sees")
    free = _compared(results, score, "at_fc", "va", "Free captions")
    return " ".join(part for part in (seen, free) if part)


def _say_search(results: Mapping[str, Any], _: Mapping[str, float], __: float) -> str:
    found = {}
    for key in ("va", "at_ac", "at_gc"):
        own = ((results.get("retrieval") or {}).get(key) or {}).get("text_to_audio") or {}
        found[key] = number(own.get("r10"))
    va, heard, gold = found["va"], found["at_ac"], found["at_gc"]
    if va is None or heard is None:
        return ""
    more = f" and {percent(gold)} with true captions" if gold is not None else ""
    return (
        "When a sentence searches the sounds, the right one is among the first ten for "
        f"{percent(va)} of the sentences with VA, {percent(heard)} with captions of what one hears"
        f"{more}."
    )


def _say_random(results: Mapping[str, Any], score: Mapping[str, float], chance: float) -> str:
    lot, va = score.get("at_rc"), score.get("va")
    if lot is None or va is None:
        return ""
    if lot > va and clear(results, lot, va):
        return (
            f"Random captions help too ({percent(lot)}): part of the gain is more training, not "
            "what the captions say."
        )
    if not clear(results, lot, va):
        return f"Random captions change nothing that can be told apart ({percent(lot)})."
    rest = " They undo what VA learned." if not clear(results, lot, chance) else ""
    return f"Random captions do not help: {percent(lot)}.{rest}"


def _say_gold(results: Mapping[str, Any], score: Mapping[str, float], _: float) -> str:
    gold = score.get("at_gc")
    others = [value for key, value in score.items() if key not in {"at_gc", "clip_image"}]
    if gold is None or not others:
        return ""
    best = max(others)
    if gold > best and clear(results, gold, best):
        return f"True captions are best by far: {percent(gold)}."
    return f"True captions reach {percent(gold)}, not clearly more than the best without them."


def _say_start(results: Mapping[str, Any], score: Mapping[str, float], _: float) -> str:
    va, random = score.get("va"), score.get("va_random_init")
    if va is None or random is None:
        return ""
    if not clear(results, va, random):
        return (
            f"Starting from CLIP's weights or from random ones ({percent(random)}) makes no clear "
            "difference here."
        )
    better = "helps" if va > random else "hurts"
    return f"Starting from CLIP's weights {better}: from random ones VA reaches {percent(random)}."
