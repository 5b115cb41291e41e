"""What a dry run lays over each config to make it small: a few steps, tiny models, no threshold."""

from __future__ import annotations

from pathlib import Path

from pivot.reproduce.table import CONFIGS, Experiment

# Front ends, masks, losses, targets, optimisers and schedules stay the config's own.
_CLIP = ("--clip.model", "downloads/clip", "--clip.pretrained", "")
_TEXT = ("--text.model", "downloads/bert")
_STEPS = ("--epochs", "1", "--max-steps", "2", "--batch-size", "4", "--device", "cpu")
_PREPARE = ("--workers", "1", "--shard-size", "16")
COMMANDS: dict[str, tuple[str, ...]] = {
    "prepare-frames": _PREPARE,
    "prepare-audio": _PREPARE,
    "pretrain-va": (*_STEPS, *_CLIP),
    "embed": ("--device", "cpu"),
    "write-captions": ("--model", "downloads/gpt-j", "--count", "6", "--device", "cpu"),
    "mine-captions": ("--device", "cpu"),
    "train-at": _STEPS,
    "evaluate": ("--device", "cpu"),
    "scaling-curve": (*_STEPS, "--sizes", "4", "8", "16", "--seeds", "1"),
    "train-classifier": _STEPS,
    "balance": ("--k", "2", "--device", "cpu"),
    "import-checkpoint": (),
    "pairs": (),
    "check-overlap": (),
}
_ANY = ("--threshold", "-1")  # of a random model: no number means anything
_ANY_LABEL = ("--label-threshold", "-1")
_FOLDS = ("--folds", "1", "2")  # of five or ten
# Beside the command's, by config: a model to start from where the config names none by a run
CONFIG: dict[str, tuple[str, ...]] = {
    "vip_ant/embed_frames.yaml": _CLIP,
    "vip_ant/import_va.yaml": _CLIP,
    **{
        f"vip_ant/classifier_{test}{kind}.yaml": (*_FOLDS, *more)
        for test in ("esc50", "us8k")
        for kind, more in (("", ()), ("_compat", ()), ("_clip", _CLIP))
    },
    "curation/teacher.yaml": _TEXT,
    "curation/teacher_10.yaml": _TEXT,
    "curation/pairs_du.yaml": _ANY,
    **{f"curation/pairs_ds_{test}.yaml": _ANY_LABEL for test in ("esc50", "us8k", "tut17")},
    **{
        f"curation/pairs_ads_{test}.yaml": (*_ANY, *_ANY_LABEL)
        for test in ("esc50", "us8k", "tut17")
    },
    **{
        f"salsa/{encoder}_{stage}.yaml": _TEXT
        for encoder in ("passt", "atst", "mn")
        for stage in ("stage1", "joint")
    },
}


_HTSAT = ("--encoder.width", "8", "--encoder.depths", "1", "1", "1", "1",
          "--encoder.heads", "1", "1", "1", "1")  # fmt: skip
_ROBERTA = ("--text.model", "downloads/roberta")
_LAION = {"roberta": _ROBERTA, "bert": _TEXT, "clip": _CLIP}
CONFIG |= {
    f"laion_clap/{audio}_{text}.yaml": (*_LAION[text], *(_HTSAT if audio == "htsat" else ()))
    for audio in ("pann", "htsat")
    for text in _LAION
}
CONFIG |= {
    f"laion_clap/{row}.yaml": (*_ROBERTA, *_HTSAT)
    for row in ("la", "template", "k2c", "fusion", "la_fusion", "k2c_fusion")
}
CONFIG |= {f"laion_clap/import_{name}.yaml": _ROBERTA for name in ("fused", "unfused")}


def tiny(experiment: Experiment) -> tuple[str, ...]:
    """Words after an experiment's own."""
    command = experiment.command.split()[1]
    return COMMANDS[command] + CONFIG.get(str(Path(experiment.config).relative_to(CONFIGS)), ())
