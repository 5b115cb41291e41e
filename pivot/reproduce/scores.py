"""VIP-ANT's evaluations as experiments: Tables 3, 4, 7 and 8, Figures 6, 7, 10 and 12."""

from __future__ import annotations

from collections.abc import Sequence

from pivot.reproduce.making import typed
from pivot.reproduce.numbers import ORACLE, RETRIEVAL, ZERO_SHOT
from pivot.reproduce.table import Expected, Experiment

ROWS = {  # models of Tables 3, 4 and 8: their rows' names
    "va_rand": "VA-Rand",
    "va": "vip-AnT",
    "at_ac": "+AT AC",
    "at_fc": "+AT FC",
    "at_vc": "+AT VC",
    "at_rc": "+AT RC",
    "at_gl": "+AT GL",
    "at_gc": "+AT GC",
}
WAYS = (
    ("T→A R@1", "text_to_audio.r1"),
    ("T→A R@10", "text_to_audio.r10"),
    ("A→T R@1", "audio_to_text.r1"),
    ("A→T R@10", "audio_to_text.r10"),
)


def retrieval() -> list[Experiment]:
    """Tables 3 and 8, the Oracle, and Figure 10 (pivotability)."""
    found = []
    for column, (test, where, shards) in enumerate(
        (
            ("retrieval_audiocaps", "Table 3, Figure 10", "prepare_audiocaps_test"),
            ("retrieval_clotho", "Table 3", "prepare_clotho"),
            ("retrieval_clotho_10s", "Table 8", "prepare_clotho"),
        )
    ):
        for model, row in ROWS.items():
            expected = _recalls("", "retrieval", RETRIEVAL[model][column])
            if column == 0:
                expected.append(Expected("pivotability over k", "pivotability", None))
            if column == 0 and model == "va":
                expected += _recalls("Oracle ", "retrieval_clip_image", ORACLE)
            data = ("AudioCaps",) if column == 0 else ()
            found.append(_test(test, model, f"{where}, {row}", shards, expected, data))
    return found


def _recalls(begin: str, key: str, values: Sequence[float]) -> list[Expected]:
    """Both directions, R@1 and R@10, as results.json has them under `key`."""
    return [
        Expected(f"{begin}{what}", f"{key}.{way}", value)
        for (what, way), value in zip(WAYS, values, strict=True)
    ]


def zero_shot() -> list[Experiment]:
    """Table 4, and Figures 6 and 12 (accuracy by class)."""
    found = []
    for test, key, shards in (
        ("zero_shot_esc50", "accuracy", "prepare_esc50"),
        ("zero_shot_us8k", "accuracy", "prepare_us8k"),
        ("zero_shot_audioset", "map", "prepare_audioset_eval"),
        ("zero_shot_esc50_compat", "accuracy", "prepare_esc50"),
        ("zero_shot_us8k_compat", "accuracy", "prepare_us8k"),
    ):
        column = test.split("_")[2]
        for model, row in ROWS.items():
            prompted, bare = ZERO_SHOT[model][column]
            word = "mAP" if key == "map" else "accuracy"
            expected = [
                Expected(word, f"zero_shot.{key}", prompted),
                Expected(f"{word} without prompt", f"zero_shot_without_prompt.{key}", bare),
            ]
            where = f"Table 4, {row}" + (", Figures 6, 12" if test == "zero_shot_esc50" else "")
            data = ("AudioSet",) if column == "audioset" else ()
            note = "dot product, as the code (D17)" if test.endswith("compat") else ""
            found.append(_test(test, model, where, shards, expected, data, note))
    return found


def _test(
    test: str,
    model: str,
    where: str,
    shards: str,
    expected: Sequence[Expected],
    data: tuple[str, ...] = (),
    note: str = "",
) -> Experiment:
    """An evaluation of a model; the configs themselves name VA."""
    out = f"runs/{test}/{model}"
    line = typed(f"evaluate runs/{model}", test, out) if model != "va" else typed("evaluate", test)
    return Experiment(
        f"{test}-{model}",
        where,
        line,
        f"{out}/results.json",
        (model, shards),
        data,
        tuple(expected),
        note,
    )


def few_shot() -> list[Experiment]:
    """Figure 7: what gold pairs are worth."""
    found = []
    for test, expected in (
        ("esc50", Expected("about 2^21 pairs reach 81 %", "reach", None)),
        ("us8k", Expected("442 pairs add 8 points to VA", "scaling", None)),
    ):
        name = f"few_shot_{test}"
        needs = ("va", "pairs_gc", f"prepare_{test}")
        found.append(
            Experiment(
                name,
                "4.2, Figure 7",
                typed("scaling-curve", name),
                f"runs/{name}/results.json",
                needs,
                expected=(expected,),
                note="442 pairs are 1 % (D22)",
            )
        )
    return found


def supervised() -> list[Experiment]:
    """Table 7, and how many layers are to train."""
    kept, code = "epoch chosen on validation (D20)", "epoch chosen on the test folds (D20)"
    found = []
    for name, key, value, needs, note in (
        ("esc50", "mean", 95.7, ("va", "prepare_esc50"), f"± 1.4, {kept}"),
        ("esc50_compat", "mean", 95.7, ("va", "prepare_esc50"), f"± 1.4, {code}"),
        ("esc50_clip", "mean", 89.7, ("prepare_esc50",), "± 1.5, CLIP's weights, no VA"),
        ("us8k", "mean", 86.0, ("va", "prepare_us8k"), f"± 2.8, {kept}"),
        ("us8k_compat", "mean", 86.0, ("va", "prepare_us8k"), f"± 2.8, {code}"),
        ("us8k_clip", "mean", 82.5, ("prepare_us8k",), "± 6.0, CLIP's weights, no VA"),
        ("audioset_balanced", "map", 37.9, ("va", "prepare_audioset_balanced"), "last four layers"),
        ("audioset", "map", 44.7, ("va", "prepare_audioset"), "all layers (D34)"),
    ):
        config = f"classifier_{name}"
        large = name.startswith("audioset")
        found.append(
            Experiment(
                config,
                "Table 7, App. C",
                typed("train-classifier", config),
                f"runs/{config}/results.json",
                (*needs, "prepare_audioset_eval") if large else needs,
                ("AudioSet",) if large else (),
                (Expected("mAP" if large else "accuracy", key, value),),
                note,
            )
        )
    balanced = "classifier_audioset_balanced"
    for k in (0, 2, 6, 8):
        name = f"{balanced}-last{k}"
        out = f"runs/{name}"
        line = f"{typed('train-classifier', balanced, out)} --last-layers {k}"
        steps = ("va", "prepare_audioset_balanced", "prepare_audioset_eval")
        note = "the paper tried 0, 2, 4, 6, 8 and took 4"
        done = f"{out}/results.json"
        found.append(Experiment(name, "App. C", line, done, steps, ("AudioSet",), note=note))
    return found
