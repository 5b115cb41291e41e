"""LAION-CLAP: encoders, data, feature fusion, zero-shot and supervised rows as experiments.

Wu, Chen, Zhang et al., Large-Scale Contrastive Language-Audio Pretraining with Feature Fusion and
Keyword-to-Caption Augmentation, ICASSP 2023.
"""

from __future__ import annotations

from functools import partial

from pivot.reproduce import table
from pivot.reproduce.table import DataSet, Expected, Experiment, Paper, by_name

CONFIGS = "configs/laion_clap"
typed = partial(table.typed, CONFIGS)

DATA = by_name(
    DataSet("LAION's tars", "downloads/laion",
            "tars as github.com/LAION-AI/audio-dataset makes them (flac of 48 kHz and json), in "
            "three folders of links to training splits: ac_cl (AudioCaps, Clotho), la (those and "
            "LAION-Audio-630K), la_audioset (those and AudioSet)"),
    DataSet("AudioCaps", "downloads/audiocaps", "test.csv of github.com/cdjkim/audiocaps"),
    DataSet("AudioSet", "downloads/audioset",
            "the videos that AudioCaps names in videos/, as YOUTUBE_ID.mp4"),
    DataSet("Clotho", "downloads/clotho",
            "the evaluation sounds and caption file of zenodo.org/record/4783391"),
    DataSet("ESC-50", "downloads/ESC-50-master", "github.com/karolpiczak/ESC-50, unpacked"),
    DataSet("UrbanSound8K", "downloads/UrbanSound8K",
            "urbansounddataset.weebly.com, unpacked"),
    DataSet("VGGSound", "downloads/vggsound",
            "vggsound.csv of robots.ox.ac.uk/~vgg/data/vggsound, and the sounds it names in "
            "audio/, as YOUTUBE_ID_SECONDS.wav"),
    DataSet("FSD50K", "downloads/FSD50K", "zenodo.org/records/4060432, unpacked"),
    DataSet("CNN14's checkpoint", "downloads/panns",
            "Cnn14_mAP=0.431.pth of zenodo.org/records/3987831"),
    DataSet("LAION's checkpoints", "downloads/laion_clap",
            "630k-audioset-best.pt and 630k-audioset-fusion-best.pt of "
            "huggingface.co/lukewys/laion_clap"),
)  # fmt: skip

# Rows of Table 2: audio and text encoders on AudioCaps and Clotho
PAIRS = [f"{audio}_{text}" for audio in ("pann", "htsat") for text in ("clip", "bert", "roberta")]
# Rows of Table 3 with HTSAT and RoBERTa: more data, captions of keywords, feature fusion
MORE = ("la", "template", "k2c", "fusion", "la_fusion", "k2c_fusion")
RELEASED = {"released_fused": 90.5, "released_unfused": 92.75}  # ESC-50, fold 1, their README
# Percent, of the paper's best model each; the specification of this project names no other number
ZERO_SHOT = {"esc50": 91.0, "us8k": 77.0, "vggsound": None}
RETRIEVAL = {"audiocaps": 36.7, "clotho": 18.2}  # R@1, text to audio
FSD50K = 64.9  # mAP


def prepare() -> list[Experiment]:
    """Shards of the test sets, at 48 kHz; the training tars are read as they are."""
    found = []
    for name, config, source, data, note in (
        ("audiocaps_test", "prepare_audiocaps", "", ("AudioCaps", "AudioSet"), "five captions"),
        ("clotho_evaluation", "prepare_clotho", "", ("Clotho",), "1,045 clips, five captions"),
        ("esc50", "prepare_test", "", ("ESC-50",), "2,000 clips"),
        ("us8k", "prepare_test", "downloads/UrbanSound8K", ("UrbanSound8K",), "8,732 clips"),
        ("vggsound", "prepare_vggsound", "", ("VGGSound",), "train and test"),
        ("fsd50k_dev", "prepare_test", "downloads/FSD50K/FSD50K.ground_truth/dev.csv",
         ("FSD50K",), "40,966 clips"),
        ("fsd50k_eval", "prepare_test", "downloads/FSD50K/FSD50K.ground_truth/eval.csv",
         ("FSD50K",), "10,231 clips"),
    ):  # fmt: skip
        line = typed(f"prepare-audio {source}".strip(), config, f"data/{name}" if source else "")
        done = f"data/{name}/manifest.json"
        found.append(Experiment(f"prepare_{name}", "data", line, done, data=data, note=note))
    return found


def checkpoints() -> list[Experiment]:
    """CNN14 to start from, and the two models that LAION released."""
    found = []
    for name, data in (
        ("pann", "CNN14's checkpoint"),
        *((name, "LAION's checkpoints") for name in RELEASED),
    ):
        config = f"import_{name.removeprefix('released_')}"
        line, done = typed("import-checkpoint", config), f"runs/{name}/results.json"
        where = "start of PANN-14" if name == "pann" else "released models"
        found.append(Experiment(config, where, line, done, data=(data,)))
    return found


def train() -> list[Experiment]:
    """Tables 2 and 3."""
    found = []
    for row in (*PAIRS, *MORE):
        needs = ("import_pann",) if row.startswith("pann") else ()
        where = "Table 2" if row in PAIRS else "Table 3"
        line, done = typed("train-at", row), f"runs/{row}/results.json"
        found.append(Experiment(row, where, line, done, needs, ("LAION's tars",)))
    return found


def retrieval() -> list[Experiment]:
    """Tables 2 and 3: both directions on AudioCaps and Clotho."""
    found = []
    for row in (*PAIRS, *MORE):
        for name, best in RETRIEVAL.items():
            shards = "audiocaps_test" if name == "audiocaps" else "clotho_evaluation"
            value = best if row == "k2c" else None
            expected = Expected("R@1 text to audio", "retrieval.text_to_audio.r1", value)
            where = "Table 2" if row in PAIRS else "Table 3"
            found.append(_test(f"retrieval_{name}", row, row, shards, where, expected))
    return found


def zero_shot() -> list[Experiment]:
    """Table 4: accuracy without training on the test set's classes."""
    found = []
    for name, best in ZERO_SHOT.items():
        for row in ("htsat_roberta", "la", "template", "k2c", "k2c_fusion"):
            value = best if row == "k2c" else None
            expected = Expected("accuracy", "zero_shot.accuracy", value)
            found.append(_test(f"zero_shot_{name}", row, row, name, "Table 4", expected))
    for row, value in RELEASED.items():
        expected = Expected("accuracy", "zero_shot.accuracy", value)
        needs = f"import_{row.removeprefix('released_')}"
        note = "theirs is of fold 1 alone, 400 clips"
        found.append(_test("zero_shot_esc50", row, needs, "esc50", "README", expected, note))
    return found


def supervised() -> list[Experiment]:
    """Table 4: fine-tuning with labels, and a linear probe."""
    found = []
    for name, data, expected in (
        ("finetune_fsd50k", ("prepare_fsd50k_dev", "prepare_fsd50k_eval"),
         (Expected("mAP", "map", FSD50K),)),
        ("finetune_vggsound", ("prepare_vggsound",), ()),
        ("probe_esc50", ("prepare_esc50",), ()),
    ):  # fmt: skip
        line, done = typed("train-classifier", name), f"runs/{name}/results.json"
        where = "beyond" if name.startswith("probe") else "Table 4"
        found.append(Experiment(name, where, line, done, ("k2c", *data), (), expected))
    return found


def _test(
    config: str, row: str, needs: str, shards: str, where: str, expected: Expected, note: str = ""
) -> Experiment:
    """An evaluation of a row's model; the configs themselves name k2c."""
    out, line = f"runs/{config}/{row}", typed("evaluate", config)
    if row != "k2c":
        line = typed(f"evaluate runs/{row}", config, out)
    done, first = f"{out}/results.json", (needs, f"prepare_{shards}")
    return Experiment(f"{config}-{row}", where, line, done, first, (), (expected,), note)


GROUPS = {
    "Data sets": prepare(),
    "Checkpoints": checkpoints(),
    "Trainings (Tables 2 and 3)": train(),
    "Retrieval (Tables 2 and 3)": retrieval(),
    "Zero-shot classification (Table 4)": zero_shot(),
    "Supervised classification (Table 4)": supervised(),
}
PAPER = Paper(CONFIGS, DATA, GROUPS)
