"""Made-up tiny models for a dry run: a CLIP, a GPT-J, and a checkpoint as the authors release them.

They have the architectures of ViT-B/32, GPT-J and vip-AnT's audio encoder, with random weights (the
GPT-J learns for some steps, so that some of its lines are sentences).
"""

from __future__ import annotations

from pathlib import Path

import open_clip
import torch
from safetensors.torch import save_file

from pivot.encoders import build_audio
from pivot.encoders.clip import load_clip
from pivot.released.vip_ant import OURS
from pivot.reproduce.made_up import MadeUp
from pivot.settings import AudioSettings, ClipSettings, VitSettings
from pivot.world import tokenizer
from pivot.world.train_writer import TrainWriter
from pivot.world.train_writer import run as train_writer
from video_prep.files import write_json

VISION = {"width": 32, "layers": 8, "head_width": 32, "image_size": 64, "patch_size": 32}
TEXT = {"width": 32, "heads": 2, "layers": 1, "context_length": 77}


def run(settings: MadeUp) -> int:
    """Write the models into OUT, where the made-up data is."""
    folder = Path(settings.out)
    write_clip(folder / "clip")
    write_checkpoint(folder / "clip", folder / "vip_ant" / "va.pth")
    captions = folder / "pools" / "vc" / "captions_train2014.json"
    return train_writer(TrainWriter(captions=str(captions), out=str(folder / "gpt-j"), steps=60))


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
