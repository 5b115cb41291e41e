"""Another encoder in the pivot's place: a published PaSST from checkpoint to mined captions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from pivot.cli import main
from pivot.errors import DataError, SettingsError
from pivot.model import load
from pivot.reproduce.made_released import write_passt
from pivot.settings import PretrainVa
from pivot.training.commands import pretrain_va
from tests import toy
from tests.toy_runs import results_of, weights_of

STEPS = ("--max-steps", "3", "--batch-size", "8", "--warmup-epochs", "0", "--device", "cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with frames, a CLIP, and a PaSST as it is published."""
    folder = tmp_path_factory.mktemp("pivots")
    toy.toy_shards(folder / "shards", clips=16)
    toy.toy_clip(folder / "clip")
    write_passt(folder / "passt.pt")
    return folder


def said(*words: object) -> None:
    assert main([str(word) for word in words]) == 0


def test_from_a_published_passt_to_soft_labels_on_mined_captions(
    world: Path, tmp_path: Path
) -> None:
    shards, clip, runs = world / "shards", ("--clip.model", world / "clip"), tmp_path
    said("import-checkpoint", world / "passt.pt", "--out", runs / "passt", "--num-frames", 100)
    published = load(runs / "passt")
    assert published.knows_no_text and published.front_end.settings.sample_rate == 32000
    sounds = [(toy.tone("bell", number, 0.4), 8000) for number in range(40)]  # more than a chunk
    tokens = published.encode_tokens(sounds)  # one a window: its features, as encode_audio has them
    assert tokens.shape == (40, 1, published.dim)
    assert torch.equal(normalize(tokens[:, 0], dim=-1), published.encode_audio(sounds))
    assert published.encode_tokens([]).shape == (0, 0, published.dim)
    with pytest.raises(DataError, match=r"encode_tokens takes a list of sounds; give \['x.wav'\]"):
        published.encode_tokens("x.wav")

    va = ("pretrain-va", shards, "--model", runs / "passt", "--out", runs / "va", *clip)
    said(*va, "--project.kind", "linear", *STEPS)
    model = load(runs / "va")
    assert model.audio.settings.kind == "passt" and model.dim == model.require_clip().dim
    assert results_of(runs / "va")["data"]["started_from"] == published.audio_hash
    assert weights_of(runs / "va") != weights_of(runs / "passt")
    told = model.encode_text(["a dog"])  # through the frozen CLIP
    assert told.shape == (1, model.dim)

    said("embed", "image", shards, "--out", runs / "frames", *clip)
    captions = runs / "captions.txt"
    captions.write_text("a dog\na cat\na bell\na car\n")
    said("mine-captions", runs / "frames", captions, "--out", runs / "mined.jsonl", "--top-k", 1)
    at = ("train-at", shards, "--model", runs / "va", "--pairs", runs / "mined.jsonl")
    soft = ("--targets.kind", "soft", "--targets.target", "softmax")
    said(*at, "--out", runs / "at", *soft, *STEPS)
    assert load(runs / "at").audio.settings == model.audio.settings

    said("evaluate", runs / "at", shards, "--out", runs / "measured", "--no-figures")
    measured = json.loads((runs / "measured" / "results.json").read_text())
    assert measured["zero_shot"]["n"] == 16 and 0 <= measured["zero_shot"]["accuracy"] <= 1


def test_a_passt_needs_a_way_into_clips_space(world: Path, tmp_path: Path) -> None:
    settings = PretrainVa(
        shards=str(world / "shards"),
        out=str(tmp_path / "va"),
        clip={"model": str(world / "clip")},
        encoder={"kind": "passt", "width": 32, "depth": 1, "heads": 1},
        audio={"num_frames": 100},
        batch_size=8,
        device="cpu",
    )
    with pytest.raises(SettingsError, match=r"have 32 numbers and CLIP's space .*--project\.kind"):
        pretrain_va(settings)
    assert not (tmp_path / "va").exists()
