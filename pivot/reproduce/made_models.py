"""Made-up tiny models for a dry run: CLIP, GPT-J, BERT, RoBERTa, and authors' checkpoints.

They have the architectures of ViT-B/32, GPT-J, BERT, RoBERTa and the authors' models, with random
weights (the GPT-J learns for some steps, so that some of its lines are sentences).
"""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.released.vip_ant import OURS
from pivot.reproduce.made_released import (
    write_atst,
    write_clap,
    write_cnn14,
    write_mobilenet,
    write_passt,
)
from pivot.reproduce.made_up import MadeUp
from pivot.settings import AudioSettings, ClipSettings, VitSettings
from pivot.world import tokenizer
from video_prep.files import write_json

VISION = {"width": 32, "layers": 8, "head_width": 32, "image_size": 64, "patch_size": 32}
TEXT = {"width": 32, "heads": 2, "layers": 1, "context_length": 77}


RELEASED = (
    ("panns", write_cnn14, "Cnn14_mAP=0.431.pth"),
    ("passt", write_passt, "passt-s-f128-p16-s16-ap.468.pt"),
    ("atst", write_atst, "atst_as2M.ckpt"),
    ("mn", write_mobilenet, "mn40_as_ext_mAP_487.pt"),
)


def run(settings: MadeUp) -> int:
    """Write the models that `parts` names into OUT, where the made-up data is."""
    folder, parts = Path(settings.out), settings.parts
    if "clip" in parts or "vip_ant" in parts:
        write_clip(folder / "clip")
    if "vip_ant" in parts:
        write_checkpoint(folder / "clip", folder / "vip_ant" / "va.pth")
    if "bert" in parts:
        write_text(folder / "bert", "Bert")
    if "roberta" in parts or "laion_clap" in parts:
        write_text(folder / "roberta", "Roberta")
    for name, write, file in RELEASED:
        if name in parts:
            write(folder / name / file)
    if "laion_clap" in parts:
        for file, fused in (
            ("630k-audioset-best.pt", False),
            ("630k-audioset-fusion-best.pt", True),
        ):
            write_clap(folder / "laion_clap" / file, folder / "roberta", fused)
    if "gpt-j" in parts:
        write_writer(folder / "pools" / "vc" / "captions_train2014.json", folder / "gpt-j")
    return 0


def write_text(folder: Path, kind: str) -> None:
    """A random encoder of `kind` (Bert, Roberta) with a word a token, as transformers keeps one."""
    import transformers  # seconds, which few experiments need

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=tokenizer.write(folder),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=130,
        pad_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)


def write_writer(captions: Path, folder: Path) -> None:
    """A GPT-J that learnt the captions for some steps."""
    from pivot.world.train_writer import TrainWriter, run

    run(TrainWriter(captions=str(captions), out=str(folder), steps=60))


def write_clip(folder: Path) -> None:
    """A random CLIP with ViT-B/32's patches, activation and pooling, as open_clip keeps one."""
    folder.mkdir(parents=True)
    text = {**TEXT, "vocab_size": tokenizer.write(folder), "hf_tokenizer_name": "beside this file"}
    config = {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": text}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(**config)
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": {}})
    weights = {name: value.contiguous() for name, value in model.state_dict().items()}
    save_file(weights, folder / "open_clip_model.safetensors")


def write_checkpoint(clip: Path, path: Path) -> None:
    """An audio encoder under the authors' names, with their `cfg`, as their code saves it."""
    audio = AudioSettings(sample_rate="native")
    encoder = build_audio(load_clip(ClipSettings(model=str(clip))), VitSettings(), audio, 0)
    theirs = {new: old for old, new in OURS.items() if new}
    state = {}
    for name, value in encoder.state_dict().items():
        new = next((new for new in theirs if name.startswith(new)), "")
        state[theirs.get(new, "misc.") + name.removeprefix(new)] = value
    cfg = {
        "running": {"audio": {"max_len": 1000, "num_mel_bins": 128}},
        "model": {"audio": {"pre_encoder": {"stride": [16, 24], "in_channels": 3}}},
    }
    loss = {"logit_scale": torch.tensor(3.0)}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"cfg": cfg, "model": (state, loss)}, path)
