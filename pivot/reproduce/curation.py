"""CLAP, DU, DS, ADS and soft labels: Tables 2 and 3 of the curation paper as experiments.

Wang et al., Unsupervised Improvement of Audio-Text Cross-Modal Representations, WASPAA 2023. DS and
ADS choose captions by the labels of a test set, so their rows have a model for each of the three.
"""

from __future__ import annotations

from functools import partial

from pivot.reproduce import table
from pivot.reproduce.table import DataSet, Expected, Experiment, Paper, by_name

CONFIGS = "configs/curation"
typed = partial(table.typed, CONFIGS)

DATA = by_name(
    DataSet("CLAP's training list", "downloads/clap",
            "FSD50K (development), AudioCaps (train), Clotho (development) and MACS, and write "
            "train.jsonl, a row {path, id, captions} a clip; tenth.txt: the ids of a tenth"),
    DataSet("AudioSet", "downloads/audioset",
            "the segment lists of research.google.com/audioset, and the videos they name in "
            "videos/, as YOUTUBE_ID.mp4"),
    DataSet("ESC-50", "downloads/ESC-50-master", "github.com/karolpiczak/ESC-50, unpacked"),
    DataSet("UrbanSound8K", "downloads/UrbanSound8K",
            "urbansounddataset.weebly.com, unpacked"),
    DataSet("TUT 2017", "downloads/TUT2017",
            "zenodo.org/records/400515 and 1040168, unpacked as "
            "TUT-acoustic-scenes-2017-development and -evaluation"),
    DataSet("CNN14's checkpoint", "downloads/panns",
            "Cnn14_mAP=0.431.pth of zenodo.org/records/3987831"),
)  # fmt: skip

TESTS = {"esc50": "ESC-50", "us8k": "UrbanSound8K", "tut17": "TUT 2017"}
# Tables 2 and 3: zero-shot accuracy in percent and its deviation of three runs, in TESTS' order
TABLE_2 = {
    "teacher": ((81.9, 0.9), (74.8, 1.2), (29.8, 1.3)),
    "sl": ((83.1, 1.2), (73.9, 2.6), (30.1, 2.1)),
    "du": ((82.4, 1.4), (73.9, 0.2), (31.5, 1.0)),
    "du_sl": ((83.0, 0.5), (74.9, 1.4), (29.9, 1.9)),
    "ds": ((78.8, 0.5), (73.2, 1.1), (29.8, 2.6)),
    "ds_sl": ((83.5, 0.6), (75.5, 1.4), (31.8, 2.6)),
    "ads": ((84.2, 0.5), (74.2, 2.1), (32.5, 1.0)),
    "ads_sl": ((85.1, 0.7), (77.4, 0.6), (36.0, 1.8)),
}
TABLE_3 = {
    "teacher_10": ((74.2, 1.3), (73.5, 2.0), (30.9, 1.6)),
    "du_sl_10": ((78.9, 0.3), (73.7, 1.3), (28.8, 1.1)),
    "ads_sl_10": ((81.3, 1.0), (74.5, 0.7), (31.3, 0.5)),
}
ROWS = {
    "teacher": "teacher", "sl": "SL", "du": "DU", "du_sl": "DU+SL", "ds": "DS", "ds_sl": "DS+SL",
    "ads": "ADS", "ads_sl": "ADS+SL", "teacher_10": "10 % teacher", "du_sl_10": "10 %, DU+SL",
    "ads_sl_10": "10 %, ADS+SL",
}  # fmt: skip
BY_LABELS = ("ds", "ds_sl", "ads", "ads_sl", "ads_sl_10")  # rows with a model for each test set


def model_of(row: str, test: str) -> str:
    """The run of a row that is tested on a data set."""
    return f"{row}-{test}" if row in BY_LABELS else row


def prepare() -> list[Experiment]:
    """Shards of the teacher's training set, of AudioSet's sounds, and of the three test sets."""
    found = []
    for name, config, source, data, note in (
        ("clap", "prepare_clap", "", "CLAP's training list", "128 k pairs in the paper"),
        ("audioset", "prepare_audioset", "", "AudioSet", "more than 1.9 M clips in the paper"),
        ("esc50", "prepare_test", "", "ESC-50", "2,000 clips"),
        ("us8k", "prepare_test", "downloads/UrbanSound8K", "UrbanSound8K", "8,732 clips"),
        ("tut17", "prepare_test", "downloads/TUT2017", "TUT 2017", "6,300 clips"),
    ):
        command = f"prepare-audio {source}".strip()
        line = typed(command, config, f"data/{name}" if source else "")
        done = f"data/{name}/manifest.json"
        found.append(Experiment(f"prepare_{name}", "data", line, done, data=(data,), note=note))
    line = typed("pairs", "pairs_clap_10")
    return [
        *found,
        Experiment("pairs_clap_10", "Table 3", line, "data/pairs/clap_10.jsonl",
                   ("prepare_clap",), note="a tenth of the teacher's clips"),
    ]  # fmt: skip


def leaks() -> list[Experiment]:
    """What the teacher's training set and the test sets share: FSD50K and two are of Freesound."""
    found = []
    for test in TESTS:
        out, shards = f"data/overlap/{test}.csv", f"data/{test}"
        command = "check-overlap" if test == "esc50" else f"check-overlap data/clap {shards}"
        line = typed(command, "overlap", "" if test == "esc50" else out)
        needs = ("prepare_clap", f"prepare_{test}")
        note = "not in the paper, which removes nothing"
        found.append(Experiment(f"overlap_{test}", "beyond", line, out, needs, note=note))
    return found


def teach() -> list[Experiment]:
    """CNN14, CLAP trained on all pairs and on a tenth, and the stores that each makes."""
    line, done = typed("import-checkpoint", "import_cnn14"), "runs/cnn14/results.json"
    data = ("CNN14's checkpoint",)
    found = [Experiment("import_cnn14", "start of the teachers", line, done, data=data)]
    for name, where, source in (
        ("teacher", "Table 2", "prepare_clap"),
        ("teacher_10", "Table 3", "pairs_clap_10"),
    ):
        found.append(_training(name, where, name, ("import_cnn14", source)))
        for what, needs in (("sounds", "prepare_audioset"), ("texts", source)):
            out = f"data/{name}/{what}"
            line = typed("embed", f"embed_{what}")
            if name != "teacher":
                own = "audio data/audioset" if what == "sounds" else "text data/pairs/clap_10.jsonl"
                line = typed(f"embed {own}", f"embed_{what}", out, f"--model runs/{name}")
            done = f"{out}/manifest.json"
            found.append(Experiment(f"{what}-{name}", where, line, done, (name, needs)))
    return found


def curate() -> list[Experiment]:
    """DU, DS and ADS: pairs of AudioSet's sounds and of the teacher's own, by the teacher."""
    found = []
    for ten in ("", "_10"):
        for rule in ("du", *(f"{rule}_{test}" for test in TESTS for rule in ("ds", "ads"))):
            found.append(_pairs(rule, ten))
    return found


def _pairs(rule: str, ten: str) -> Experiment:
    """Pairs by the teacher of all pairs, or by that of a tenth."""
    teacher, out = f"teacher{ten}", f"data/pairs/{rule}{ten}.parquet"
    needs = [f"sounds-{teacher}", f"texts-{teacher}"]
    needs += [f"prepare_{test}" for test in TESTS if rule.endswith(test)]
    command, more = "mine-captions", ""
    if ten:
        texts = "data/pairs/clap_10.jsonl" if rule.startswith("ds") else f"data/{teacher}/texts"
        command = f"mine-captions data/{teacher}/sounds {texts}"
        if rule != "du":
            more = f"--model runs/{teacher}"
        if rule.startswith("ds"):
            more += f" --texts data/{teacher}/texts"
    line = typed(command, f"pairs_{rule}", out if ten else "", more)
    note = "many-to-many, without caps" if rule == "du" else ""
    where = "Table 3" if ten else "Table 2"
    return Experiment(f"pairs_{rule}{ten}", where, line, out, tuple(needs), note=note)


def study() -> list[Experiment]:
    """The students: a training for each row, and for DS and ADS for each test set."""
    found = []
    for row in (*TABLE_2, *TABLE_3):
        if row.startswith("teacher"):
            continue
        where = f"Table {3 if row.endswith('_10') else 2}, {ROWS[row]}"
        for test in TESTS if row in BY_LABELS else ("",):
            found.append(_student(row, test, where))
    for test in TESTS:
        name = f"ads_no_replay-{test}"
        found.append(_student("ads", test, "3.2", name, "--replay.probability 1"))
    return found


def _student(row: str, test: str, where: str, name: str = "", more: str = "") -> Experiment:
    """A row's training; its config names ESC-50, flags the other test sets."""
    name, ten = name or model_of(row, test), "_10" if row.endswith("_10") else ""
    needs = [f"teacher{ten}", "pairs_clap_10" if ten else "prepare_clap"]
    kinds = [kind for kind in ("du", "ds", "ads") if row.split("_")[0] == kind]
    kinds = ["ds", "ads"] if kinds == ["ads"] else kinds
    needs += [f"pairs_{kind}_{test}{ten}" if test else f"pairs_{kind}{ten}" for kind in kinds]
    if test and test != "esc50":
        files = [f"data/pairs/{kind}_{test}{ten}.parquet" for kind in kinds]
        own = f"--pairs {files[0]} " if len(files) > 1 else ""
        more = f"{own}--replay.pairs {files[-1]} {more}".strip()
    flagged = name != f"{row}-esc50" and name != row
    return _training(name, where, row, tuple(needs), f"runs/{name}" if flagged else "", more)


def _training(
    name: str, where: str, config: str, needs: tuple[str, ...], out: str = "", more: str = ""
) -> Experiment:
    line = typed("train-at", config, out, more)
    return Experiment(name, where, line, f"runs/{name}/results.json", needs)


def zero_shot() -> list[Experiment]:
    """Tables 2 and 3: accuracy on each test set, of the row's model for it."""
    found = []
    for row, numbers in (TABLE_2 | TABLE_3).items():
        table_number = 3 if row in TABLE_3 else 2
        for test, (value, deviation) in zip(TESTS, numbers, strict=True):
            expected = (Expected("accuracy", "zero_shot.accuracy", value),)
            where = f"Table {table_number}, {ROWS[row]}"
            note = f"± {deviation}, three runs"
            found.append(_test(test, model_of(row, test), where, expected, note))
    for test, gain in zip(TESTS, (0.6, 0.9, 2.1), strict=True):
        expected = (Expected("accuracy", "zero_shot.accuracy", None),)
        note = f"replay is worth {gain} points more"
        found.append(_test(test, f"ads_no_replay-{test}", "3.2", expected, note))
    return found


def _test(
    test: str, model: str, where: str, expected: tuple[Expected, ...], note: str
) -> Experiment:
    """An evaluation of a model; the configs themselves name the teacher."""
    out, config = f"runs/zero_shot_{test}/{model}", f"zero_shot_{test}"
    line = typed("evaluate", config)
    if model != "teacher":
        line = typed(f"evaluate runs/{model}", config, out)
    needs, done = (model, f"prepare_{test}"), f"{out}/results.json"
    return Experiment(f"{config}-{model}", where, line, done, needs, (), expected, note)


GROUPS = {
    "Data sets": prepare(),
    "What training and test sets share": leaks(),
    "Teachers and their stores": teach(),
    "Curation: DU, DS, ADS": curate(),
    "Students (Tables 2 and 3)": study(),
    "Zero-shot classification (Tables 2 and 3)": zero_shot(),
}
PAPER = Paper(CONFIGS, DATA, GROUPS)
