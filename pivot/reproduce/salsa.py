"""Estimated correspondences (SALSA): Tables 1 and 2 as experiments.

Primus et al., Estimated Audio-Caption Correspondences Improve Language-Based Audio Retrieval, DCASE
2024. Stage 1 trains on the pairs, stage 2 towards what models of stage 1 find alike.
"""

from __future__ import annotations

from functools import partial

from pivot.reproduce import table
from pivot.reproduce.table import DataSet, Expected, Experiment, Paper, by_name

CONFIGS = "configs/salsa"
typed = partial(table.typed, CONFIGS)

DATA = by_name(
    DataSet("Clotho", "downloads/clotho",
            "the development and evaluation sounds and caption files of "
            "zenodo.org/record/4783391"),
    DataSet("AudioCaps", "downloads/audiocaps",
            "train.csv and test.csv of github.com/cdjkim/audiocaps"),
    DataSet("AudioSet", "downloads/audioset",
            "the videos that AudioCaps names in videos/, as YOUTUBE_ID.mp4"),
    DataSet("joint list", "downloads/joint",
            "Clotho (development), AudioCaps (train) and WavCaps without the Freesound sounds that "
            "DCASE excludes, and write train.jsonl, a row {path, id, captions} a clip"),
    DataSet("PaSST's checkpoint", "downloads/passt",
            "passt-s-f128-p16-s16-ap.468.pt, a release of github.com/kkoutini/PaSST"),
    DataSet("ATST's checkpoint", "downloads/atst",
            "atst_as2M.ckpt, of github.com/Audio-WestlakeU/ATST-SED"),
    DataSet("MN's checkpoint", "downloads/mn",
            "mn40_as_ext_mAP_487.pt, a release of github.com/fschmid56/EfficientAT"),
)  # fmt: skip

ENCODERS = {"passt": "PaSST", "atst": "ATST", "mn": "MN"}
# What a training on clips of ten seconds has, whose config is for thirty
TEN_SECONDS = {
    "passt": "--audio.windows 1",
    "atst": "--audio.windows 1",
    "mn": "--audio.num-frames 1000",
}
SETS = {"clotho": "clotho_development", "audiocaps": "audiocaps_train"}  # training shards
# Table 1 in percent: mAP@10, R@1, R@5, R@10, text to audio, on Clotho and on AudioCaps
TABLE_1 = {
    "passt_stage1": ((28.93, 18.11, 43.54, 57.57), (55.30, 40.74, 75.89, 86.28)),
    "passt_stage2_m3": ((31.25, 19.52, 46.49, 61.30), (57.61, 42.55, 79.04, 88.74)),
    "passt_stage2_m1": ((30.18, 18.95, 45.28, 59.43), (56.67, 41.66, 78.00, 88.21)),
    "atst_stage1": ((28.26, 17.36, 42.58, 56.25), (55.86, 42.47, 74.06, 84.26)),
    "atst_stage2_m3": ((31.01, 19.29, 46.33, 61.07), (59.37, 45.43, 78.02, 88.51)),
    "atst_stage2_m1": ((29.83, 17.75, 43.73, 57.81), (57.72, 43.89, 77.17, 86.96)),
    "mn_stage1": ((28.72, 17.57, 43.73, 57.82), (55.16, 40.26, 74.06, 87.11)),
    "mn_stage2_m3": ((30.25, 18.49, 46.11, 59.81), (57.06, 41.83, 77.92, 88.45)),
    "mn_stage2_m1": ((28.96, 17.80, 44.59, 57.84), (54.95, 39.62, 76.66, 88.32)),
}
TABLE_2 = {  # PaSST trained on all three sets, then on Clotho
    "passt_joint": (35.46, 23.64, 51.44, 64.98),
    "passt_joint_without": (36.33, 24.31, 52.84, 65.63),
    "passt_joint_with": (40.14, 27.69, 57.03, 70.39),
}
KEYS = {
    "mAP@10": "retrieval.map10",
    "R@1": "retrieval.text_to_audio.r1",
    "R@5": "retrieval.text_to_audio.r5",
    "R@10": "retrieval.text_to_audio.r10",
}


def prepare() -> list[Experiment]:
    """Shards of Clotho, AudioCaps and the joint list."""
    captions, both = "downloads/clotho/clotho_captions_evaluation.csv", ("AudioCaps", "AudioSet")
    found = []
    for name, config, source, data, note in (
        ("clotho_development", "prepare_clotho", "", ("Clotho",), "3,839 clips, five captions"),
        ("clotho_evaluation", "prepare_clotho", captions, ("Clotho",), "1,045 clips"),
        ("audiocaps_train", "prepare_audiocaps", "", both, "one caption a clip"),
        ("audiocaps_test", "prepare_audiocaps", "downloads/audiocaps/test.csv", both,
         "five captions a clip"),
        ("joint", "prepare_joint", "", ("joint list",), "Clotho, AudioCaps, WavCaps"),
    ):  # fmt: skip
        command = f"prepare-audio {source}".strip()
        line = typed(command, config, f"data/{name}" if source else "")
        done = f"data/{name}/manifest.json"
        found.append(Experiment(f"prepare_{name}", "data", line, done, data=data, note=note))
    return found


def encoders() -> list[Experiment]:
    """The audio encoders as their authors trained them on AudioSet."""
    found = []
    for encoder, title in ENCODERS.items():
        name = f"import_{encoder}"
        line, data = typed("import-checkpoint", name), (f"{title}'s checkpoint",)
        done = f"runs/{encoder}/results.json"
        found.append(Experiment(name, "start of stage 1", line, done, data=data))
    return found


def stage1() -> list[Experiment]:
    """Trainings on the pairs: Table 1 on each set, and the models of all three for Table 2."""
    found = []
    for encoder, title in ENCODERS.items():
        for name in SETS:
            found.append(_training(f"{encoder}_stage1", f"Table 1, {title}, stage 1", name))
    for encoder, title in ENCODERS.items():
        name, where = f"{encoder}_joint", "Table 2, stage 1"
        line, done = typed("train-at", name), f"runs/{name}/results.json"
        note = "" if encoder == "passt" else f"{title}: a teacher of Table 2, as we read it"
        needs = (f"import_{encoder}", "prepare_joint", "prepare_clotho_evaluation")
        found.append(Experiment(name, where, line, done, needs, note=note))
    return found


def estimate() -> list[Experiment]:
    """Stores of the training clips and captions: what each model of stage 1 finds alike."""
    found = []
    for encoder in ENCODERS:
        for run, name in (
            *((f"{encoder}_stage1-{name}", name) for name in SETS),
            (f"{encoder}_joint", "clotho"),
        ):
            for what, kind in (("sounds", "audio"), ("texts", "text")):
                shards, out = f"data/{SETS[name]}", f"data/{run}/{what}"
                line = typed("embed", f"embed_{what}")
                if run != "passt_stage1-clotho":
                    command = f"embed {kind} {shards}"
                    line = typed(command, f"embed_{what}", out, f"--model runs/{run}")
                needs, done = (run, f"prepare_{SETS[name]}"), f"{out}/manifest.json"
                where = "Table 2" if run.endswith("joint") else "Table 1"
                found.append(Experiment(f"{what}-{run}", where, line, done, needs))
    return found


def stage2() -> list[Experiment]:
    """Trainings towards estimated correspondences: of three models (M = 3), or of the own one."""
    found = []
    for encoder, title in ENCODERS.items():
        for m, teachers in ((3, tuple(ENCODERS)), (1, (encoder,))):
            for name in SETS:
                where = f"Table 1, {title}, stage 2, M = {m}"
                row = f"{encoder}_stage2_m{m}"
                found.append(_training(row, where, name, f"{encoder}_stage1-{name}", teachers))
    needs = ("passt_joint", f"prepare_{SETS['clotho']}")
    for name, note in (
        ("passt_joint_without", ""),
        ("passt_joint_with", "the share of the estimates is not published; here a half"),
    ):
        taught = name.endswith("_with")
        stores = [f"{what}-{one}_joint" for one in ENCODERS for what in ("sounds", "texts")]
        line, done = typed("train-at", name), f"runs/{name}/results.json"
        more = (*needs, *stores) if taught else needs
        found.append(Experiment(name, "Table 2, stage 2", line, done, more, note=note))
    return found


def _training(
    row: str, where: str, name: str, model: str = "", teachers: tuple[str, ...] = ()
) -> Experiment:
    """A row's training on a set; its config names Clotho, flags AudioCaps."""
    runs = [f"{one}_stage1-{name}" for one in teachers]
    encoder = row.split("_")[0]
    needs = [f"prepare_{SETS[name]}", model or f"import_{encoder}"]
    needs += [f"{what}-{run}" for run in runs for what in ("sounds", "texts")]
    run, command, out, more = f"{row}-{name}", "train-at", "", ""
    if name != "clotho":
        shards = f"data/{SETS[name]}"
        command, more = f"train-at {shards}", f"--pairs {shards}"
        if model:
            stores = " ".join(f"data/{one}/sounds:data/{one}/texts" for one in runs)
            more += f" --model runs/{model} --targets.teachers {stores}"
        else:
            more += f" {TEN_SECONDS[encoder]}"
        out = f"runs/{run}"
    line = typed(command, row, out, more)
    return Experiment(run, where, line, f"runs/{run}/results.json", tuple(needs))


def retrieval() -> list[Experiment]:
    """Tables 1 and 2: text-to-audio retrieval on the test clips of each set."""
    found = []
    for row, numbers in TABLE_1.items():
        for name, values in zip(SETS, numbers, strict=True):
            found.append(_test(f"{row}-{name}", name, "Table 1", values))
    for row, values in TABLE_2.items():
        found.append(_test(row, "clotho", "Table 2", values))
    return found


def _test(model: str, name: str, where: str, values: tuple[float, ...]) -> Experiment:
    """An evaluation of a model; the configs themselves name PaSST after stage 1."""
    config, shards = f"retrieval_{name}", "clotho_evaluation"
    shards = shards if name == "clotho" else "audiocaps_test"
    out = f"runs/{config}/{model}"
    line = typed("evaluate", config)
    if model != f"passt_stage1-{name}":
        line = typed(f"evaluate runs/{model}", config, out)
    expected = tuple(
        Expected(what, key, value) for (what, key), value in zip(KEYS.items(), values, strict=True)
    )
    needs, done = (model, f"prepare_{shards}"), f"{out}/results.json"
    return Experiment(f"{config}-{model}", where, line, done, needs, (), expected)


def leaks() -> list[Experiment]:
    """What the joint list and Clotho's test clips share: WavCaps and Clotho are of Freesound."""
    line, needs = typed("check-overlap", "overlap"), ("prepare_joint", "prepare_clotho_evaluation")
    note = "must be none: DCASE's list of excluded ids"
    return [Experiment("overlap", "data", line, "data/overlap/joint_clotho.csv", needs, note=note)]


GROUPS = {
    "Data sets": prepare(),
    "What training and test sets share": leaks(),
    "Audio encoders": encoders(),
    "Stage 1: on the pairs (Tables 1 and 2)": stage1(),
    "Estimates: what models of stage 1 find alike": estimate(),
    "Stage 2: on the estimates (Tables 1 and 2)": stage2(),
    "Retrieval (Tables 1 and 2)": retrieval(),
}
PAPER = Paper(CONFIGS, DATA, GROUPS)
