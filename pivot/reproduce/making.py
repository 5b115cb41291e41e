"""VIP-ANT's data sets, trainings and pairs as experiments: what Tables 2, 5 and 6 are made of."""

from __future__ import annotations

from functools import partial

from pivot.reproduce import table
from pivot.reproduce.table import Experiment

CONFIGS = "configs/vip_ant"
typed = partial(table.typed, CONFIGS)


def training(
    name: str, where: str, config: str, command: str, needs: tuple[str, ...], note: str = ""
) -> Experiment:
    """A training whose run folder is runs/NAME."""
    done = f"runs/{name}/results.json"
    return Experiment(name, where, typed(command, config), done, needs, note=note)


def prepare() -> list[Experiment]:
    """Data sets from their official layouts to shards; the configs name the first of each kind."""
    videos, sounds = "prepare-frames", "prepare-audio"
    both = ("AudioSet", "AudioCaps")
    found = []
    for name, clips, command, config, source, data in (
        ("audioset", 1_715_367, videos, "prepare_audioset", "", ("AudioSet",)),
        ("audioset_balanced", 18_036, videos, "prepare_audioset",
         "downloads/audioset/balanced_train_segments.csv", ("AudioSet",)),
        ("audioset_eval", 16_416, videos, "prepare_audioset",
         "downloads/audioset/eval_segments.csv", ("AudioSet",)),
        ("audiocaps_train", 44_118, videos, "prepare_audiocaps", "", both),
        ("audiocaps_test", 860, videos, "prepare_audiocaps",
         "downloads/audiocaps/test.csv", both),
        ("esc50", 2000, sounds, "prepare_audio", "", ("ESC-50",)),
        ("us8k", 8732, sounds, "prepare_audio", "downloads/UrbanSound8K", ("UrbanSound8K",)),
        ("clotho", 1045, sounds, "prepare_audio",
         "downloads/clotho/clotho_captions_evaluation.csv", ("Clotho",)),
    ):  # fmt: skip
        out = f"data/{name}"
        line = typed(f"{command} {source}", config, out) if source else typed(command, config)
        done = f"{out}/manifest.json"
        note = f"the authors had {clips:,} clips"
        found.append(Experiment(f"prepare_{name}", "Table 6", line, done, data=data, note=note))
    return found


def pretrain() -> list[Experiment]:
    """VA pre-training, and its variants."""
    needs = ("prepare_audioset", "prepare_audioset_balanced")
    curves = "precision and recall of each epoch: validation.jsonl in the run (D18)"
    return [
        training(name, where, config, "pretrain-va", needs, note)
        for name, where, config, note in (
            ("va", "3.2, Table 5, Figure 5", "pretrain_va", curves),
            ("va_rand", "Tables 3, 4, 8, Figure 5", "pretrain_va_random", curves),
            ("va_load_mean", "3.2.1", "pretrain_va_load_mean", "the paper's words (D8)"),
        )
    ]


def curate() -> list[Experiment]:
    """Table 2: pools of captions to pairs."""
    found = [
        Experiment(
            "frames",
            "3.3",
            typed("embed", "embed_frames"),
            "data/frames/audiocaps_train/manifest.json",
            ("prepare_audiocaps_train",),
        ),
        Experiment(
            "captions_fc",
            "3.3, Table 2",
            typed("write-captions", "write_captions"),
            "data/fc/results.json",
            data=("caption pools",),
            note="the paper's prompt and sampling are not recorded; the settings are ours",
        ),
    ]
    for key, count, needs, data in (
        ("ac", 1_080_078, (), ("caption pools",)),
        ("fc", 1_224_621, ("captions_fc",), ()),
        ("vc", 1_172_276, (), ("caption pools",)),
        ("gl", 120_816, ("prepare_audioset",), ()),
        ("gc", 44_118, ("prepare_audiocaps_train",), ()),
        ("rc_fixed", None, (), ("AudioCaps",)),
    ):
        name, line = f"pairs_{key}", typed("mine-captions", f"pairs_{key}")
        note = f"the paper has {count:,} pairs (D14)" if count else "D15"
        done = f"data/pairs/{key}.parquet"
        found.append(
            Experiment(name, "3.3, Table 2", line, done, ("frames", *needs), data, note=note)
        )
    return found


def tune() -> list[Experiment]:
    """AT fine-tuning: the rows of the tables, the readings of Table 5, and VAT."""
    rows = "Tables 3, 4, 8"
    return [
        training(name, where, config, "train-at", ("va", f"pairs_{pairs}"), note)
        for name, config, pairs, where, note in (
            ("at_ac", "train_at", "ac", rows, ""),
            ("at_fc", "at_fc", "fc", rows, ""),
            ("at_vc", "at_vc", "vc", rows, ""),
            ("at_rc", "at_rc", "gc", rows, "another clip's caption at every access (D15)"),
            ("at_gl", "at_gl", "gl", rows, ""),
            ("at_gc", "at_gc", "gc", rows, "reading A of Table 5, 50 epochs"),
            ("at_gc_a25", "at_gc_a25", "gc", "Table 5", "reading A of Table 5, 25 epochs"),
            ("at_gc_b", "at_gc_b", "gc", "Table 5", "reading B of Table 5"),
            ("at_gc_scale", "at_gc_scale", "gc", "3.3", "the scale goes on from VA's (D33)"),
            ("at_rc_fixed", "at_rc_fixed", "rc_fixed", "3.3", "a clip keeps its caption (D15)"),
            ("vat", "vat", "gc", "Eq. 2, App. E", "images, sounds and captions together"),
        )
    ]


def beyond() -> list[Experiment]:
    """The authors' notes and files: kNN balancing, released checkpoints."""
    where, stores = "authors' notes", ("audioset", "audioset_balanced")
    found = []
    for name in stores:
        command = "embed" if name == "audioset" else f"embed audio data/{name}"
        out = f"data/sounds/{name}"
        line = typed(command, "embed_audio", "" if name == "audioset" else out)
        done, needs = f"{out}/manifest.json", ("va", f"prepare_{name}")
        found.append(Experiment(f"sounds_{name}", where, line, done, needs))
    return [
        *found,
        Experiment(
            "balance",
            where,
            typed("balance", "balance"),
            "data/balanced_ids.txt",
            tuple(f"sounds_{name}" for name in stores),
            note="not in the paper",
        ),
        training(
            "va_knn",
            where,
            "pretrain_va_knn",
            "pretrain-va",
            ("balance", *(f"prepare_{name}" for name in stores)),
            "not in the paper",
        ),
        Experiment(
            "va_released",
            "Tables 3, 4",
            typed("import-checkpoint", "import_va"),
            "runs/va_released/results.json",
            data=("released checkpoints",),
            note="another checkpoint for each task (D23)",
        ),
    ]
