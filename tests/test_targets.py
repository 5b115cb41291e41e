"""Targets of the loss: goldens of CLAP curation and SALSA, the worked example, trainings."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pivot.data.batches import Batch
from pivot.embeddings import embed
from pivot.embeddings.store import EmbeddingStore
from pivot.errors import DataError, SettingsError, StoreError
from pivot.settings import (
    AdamSettings,
    Embed,
    FitSettings,
    LarsSettings,
    LossSettings,
    PretrainVa,
    TrainAt,
)
from pivot.settings.targets import TargetSettings
from pivot.training import targets
from pivot.training.aims import Aim, OwnTeacher
from pivot.training.commands import pretrain_va, train_at
from pivot.training.loss import contrastive
from pivot.training.module import Contrast
from pivot.training.schedule import schedule
from tests import toy
from tests.toy_runs import (
    Stop,
    at_settings,
    column,
    far_apart,
    results_of,
    rows_of,
    stop_at,
    toy_world,
    va_settings,
    weights_of,
)

RTOL = {"f64": 1e-9, "f32": 2e-4}


def leaf(x: np.ndarray) -> Tensor:
    return torch.tensor(x, requires_grad=True)


def close(found: Tensor | None, wanted: np.ndarray, rtol: float) -> None:
    """Equal up to `rtol` of the largest number there is."""
    assert found is not None
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(found.detach().numpy(), wanted, rtol=rtol, atol=rtol * scale)


@pytest.fixture(scope="module")
def curation(goldens: Path) -> dict[str, np.ndarray]:
    with np.load(goldens / "distill" / "clap_curation.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def salsa(goldens: Path) -> dict[str, np.ndarray]:
    with np.load(goldens / "distill" / "salsa.npz") as arrays:
        return dict(arrays)


# ---- the papers' numbers -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["f64", "f32"])
@pytest.mark.parametrize(("group", "scale"), [
    ("clap_hard", "logit_scale"), ("clap_hard_clamped", "logit_scale_big"),
])  # fmt: skip
def test_hard_loss_with_clamped_logits_is_the_papers(curation, kind, group, scale) -> None:
    a, b = (leaf(curation[f"inputs/{kind}/{side}"]) for side in ("audio", "text"))
    log_scale = leaf(curation[f"inputs/{kind}/{scale}"])
    loss = contrastive(a, b, log_scale.exp(), reduction="mean", clamp=100)
    loss.backward()
    for found, name in ((loss, "loss"), (a.grad, "grad_audio"), (b.grad, "grad_text"),
                        (log_scale.grad, "grad_logit_scale")):  # fmt: skip
        close(found, curation[f"{group}/{kind}/{name}"], RTOL[kind])


@pytest.mark.parametrize("kind", ["f64", "f32"])
@pytest.mark.parametrize(("group", "teacher", "beta"), [
    ("softclap_pos_beta0.0", "_pos", 0.0), ("softclap_pos_beta0.3", "_pos", 0.3),
    ("softclap_pos_beta1.0", "_pos", 1.0), ("softclap_neg_torch110", "", 0.3),
])  # fmt: skip
def test_soft_label_loss_is_the_papers(curation, kind, group, teacher, beta) -> None:
    a, b = (leaf(curation[f"inputs/{kind}/{side}"]) for side in ("audio", "text"))
    sides = [torch.tensor(curation[f"inputs/{kind}/teacher_{s}{teacher}"])
             for s in ("audio", "text")]  # fmt: skip
    log_scale = leaf(curation[f"inputs/{kind}/logit_scale"])
    forth, back = targets.soft_labels(*sides, beta)
    loss = targets.soft_label_loss(a, b, log_scale.exp(), forth, back, clamp=100)
    loss.backward()
    rtol = max(RTOL[kind], 1e-7)  # their identity matrix is float32
    for found, name in ((loss, "loss"), (a.grad, "grad_audio"), (b.grad, "grad_text"),
                        (log_scale.grad, "grad_logit_scale")):  # fmt: skip
        close(found, curation[f"{group}/{kind}/{name}"], rtol)


def test_soft_labels_of_the_worked_example() -> None:
    teach_a = torch.tensor([[1, 0], [0.6, 0.8], [0, 1]], dtype=torch.float64)
    teach_b = torch.tensor([[1, 0], [0.8, 0.6], [0, 1]], dtype=torch.float64)
    forth, back = targets.soft_labels(teach_a, teach_b, 0.3)
    np.testing.assert_allclose(forth, [[1, 0.18, 0], [0.18, 1, 0.24], [0, 0.24, 1]], atol=1e-12)
    np.testing.assert_allclose(back, [[1, 0.24, 0], [0.24, 1, 0.18], [0, 0.18, 1]], atol=1e-12)
    # logits that are the cosines of vectors, times two
    wanted = torch.tensor([[2, 1, 0], [1, 2, 1], [0, 1, 2]], dtype=torch.float64)
    vectors = torch.linalg.cholesky(wanted / 2)
    loss = targets.soft_label_loss(vectors, vectors, 2.0, forth, back)
    assert loss.item() == pytest.approx(0.435705, abs=1e-6)
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    targets.soft_label_loss(vectors, vectors, scale, forth, back).backward()
    slope = [[-0.065019, 0.028289, 0.035412], [0.030737, -0.060638, 0.028289],
             [0.037213, 0.030737, -0.065019]]  # fmt: skip
    by_scale = (torch.tensor(slope, dtype=torch.float64) * wanted / 2).sum()
    assert scale.grad is not None
    assert scale.grad.item() == pytest.approx(by_scale.item(), abs=3e-6)


def test_soft_labels_that_sum_to_one_are_named_deviations() -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = torch.randn(2, 5, 8, generator=generator, dtype=torch.float64)
    raw, _ = targets.soft_labels(a, b, 0.3)
    cos = F.normalize(a, dim=1) @ F.normalize(a, dim=1).T
    assert (cos < 0).any() and not torch.allclose(raw.sum(1), torch.ones(5).double())
    for kind in ("row_normalised", "softmax"):
        for found in targets.soft_labels(a, b, 0.3, kind, 0.2):
            torch.testing.assert_close(found.sum(1), torch.ones(5, dtype=torch.float64))
    rows, _ = targets.soft_labels(a, b, 0.3, "row_normalised")
    torch.testing.assert_close(rows, raw / raw.sum(1, keepdim=True))
    soft, _ = targets.soft_labels(a, b, 0.3, "softmax", 0.2)
    torch.testing.assert_close(soft, 0.7 * torch.eye(5).double() + 0.3 * (cos / 0.2).softmax(1))
    two = torch.stack([a, b])
    mean, _ = targets.soft_labels(two, two, 1.0)
    other = F.normalize(b, dim=1) @ F.normalize(b, dim=1).T
    torch.testing.assert_close(mean, ((cos + other) / 2).clamp_min(0))
    with pytest.raises(ValueError, match="raw, row_normalised or softmax, not 'hard'"):
        targets.soft_labels(a, b, 0.3, "hard")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["f64", "f32"])
@pytest.mark.parametrize("group", [
    "stage1_unique", "stage1_dup", "distill_M1", "distill_M3", "mixed_M3_lw0.5_dw1",
])  # fmt: skip
def test_salsa_losses_are_the_papers(salsa, kind, group) -> None:
    a, b = (leaf(salsa[f"inputs/{kind}/{side}"]) for side in ("audio", "text"))
    tau = torch.tensor([0.05], dtype=a.dtype, requires_grad=True)
    teachers = [torch.tensor(salsa[f"inputs/{kind}/teacher_{side}"]) for side in ("audio", "text")]
    ids = salsa["inputs/path_ids_dup" if group == "stage1_dup" else "inputs/path_ids_unique"]
    first = targets.salsa_stage1(a, b, torch.tensor(ids), tau)
    if group == "distill_M1":
        teachers = [side[:1] for side in teachers]
    second = targets.distillation(a, b, targets.cosines(*teachers), tau)
    loss = {"s": first, "d": second, "m": 0.5**2 * first + second}[group[0]]
    loss.backward()
    for found, name in ((loss, "loss"), (a.grad, "grad_audio"), (b.grad, "grad_text"),
                        (tau.grad, "grad_tau")):  # fmt: skip
        close(found.squeeze() if name == "loss" else found, salsa[f"{group}/{kind}/{name}"],
              RTOL[kind])  # fmt: skip


def test_the_rate_of_salsa(salsa) -> None:
    settings = FitSettings(out="o", epochs=20, warmup_epochs=1, cosine_epochs=15, final_lr=0.005)
    plan = schedule(settings, per_epoch=4)
    np.testing.assert_array_equal(salsa["lr_schedule/epoch"] * 4, np.arange(81))
    rates = [2e-5 * plan.share(step) for step in range(81)]
    np.testing.assert_allclose(rates, salsa["lr_schedule/lr"], rtol=1e-6, atol=1e-12)
    with pytest.raises(SettingsError, match=r"--cosine-epochs 0.5 are 2 steps, of which 4 are"):
        schedule(settings.model_copy(update={"cosine_epochs": 0.5}), per_epoch=4)


def test_recordings_may_be_named_or_numbered() -> None:
    wanted = [[True, False, True], [False, True, False], [True, False, True]]
    assert targets.positives_of(["a", "b", "a"]).tolist() == wanted
    assert targets.positives_of(torch.tensor([[7], [2], [7]])).tolist() == wanted


# ---- batch by batch ----------------------------------------------------------------------------


N, D = 6, 8


def tables() -> list[Tensor]:
    return list(torch.randn(6, N, D, generator=torch.Generator().manual_seed(4)))


def batch_of(clips: list[int]) -> Batch:
    """Sounds are numbers 0 to 5 as one-hot rows; captions have the same numbers."""
    rows = torch.arange(N)[:, None]
    return Batch(torch.eye(N), {"text": rows, "clip": torch.tensor(clips)[:, None]})


def task_of(settings: TargetSettings, **loss: Any) -> Contrast:
    """A linear encoder of the sounds, fixed captions, and two teachers."""
    encoder = nn.Linear(N, D, bias=False)
    sounds, texts, *taught = tables()
    encoder.weight.data = sounds.T.contiguous()
    teachers = [lambda batch, i=i: (taught[i], taught[i + 2]) for i in (0, 1)]
    own = LossSettings(**({"scale_init": 20.0, "reduction": "mean"} | loss))
    aims = {"audio_text": Aim(settings, teachers)}
    return Contrast(encoder, {"text": lambda rows: texts[rows[:, 0]]}, own, aims=aims)


def test_a_task_has_the_losses_of_the_formulas() -> None:
    sounds, texts, *taught = tables()
    cos = torch.stack([targets.cosines(taught[i], taught[i + 2]) for i in (0, 1)])
    ids = [0, 1, 2, 3, 4, 4]
    first = targets.salsa_stage1(sounds, texts, ids, 0.05)
    second = targets.distillation(sounds, texts, cos, 0.05, 0.1)
    pairs = [torch.stack([taught[i], taught[i + 1]]) for i in (0, 2)]
    forth, back = targets.soft_labels(pairs[0], pairs[1], 0.2)
    soft = targets.soft_label_loss(sounds, texts, 20.0, forth, back, clamp=3)
    for settings, wanted, more in (
        ({"kind": "same_recording"}, first, {}),
        ({"kind": "estimated", "temperature": 0.1}, second, {}),
        ({"kind": "estimated", "temperature": 0.1, "weight": 0.25},
         0.75 * first + 0.25 * second, {}),
        ({"kind": "soft", "weight": 0.2}, soft, {"logit_max": 3}),
        ({"kind": "soft", "weight": 0.2}, 2 * soft, {"logit_max": 3, "reduction": "sum"}),
    ):  # fmt: skip
        task = task_of(TargetSettings(**settings), **more)
        torch.testing.assert_close(task.loss(batch_of(ids)), wanted, rtol=2e-5, atol=1e-5)


def test_the_models_own_temperature_teaches_and_learns() -> None:
    """Without a temperature the teacher's is the student's, with its gradient, as in SALSA."""
    sounds, texts, *taught = tables()
    task = task_of(TargetSettings(kind="estimated", temperature=None))
    task.loss(batch_of([*range(N)])).backward()
    tau = torch.tensor(0.05, requires_grad=True)
    cos = torch.stack([targets.cosines(taught[i], taught[i + 2]) for i in (0, 1)])
    targets.distillation(sounds, texts, cos, tau).backward()
    found = task.scales["audio_text"].log_scale.grad
    torch.testing.assert_close(found, -0.05 * tau.grad, rtol=1e-4, atol=1e-5)


def test_all_frames_of_a_clip_are_its_partners() -> None:
    frames = torch.randn(2 * N, D, generator=torch.Generator().manual_seed(5))
    sounds = tables()[0]
    encoder = nn.Linear(N, D, bias=False)
    encoder.weight.data = sounds.T.contiguous()
    task = Contrast(
        encoder, {"image": lambda rows: frames[rows].mean(1)}, LossSettings(scale_init=5.0),
        aims={"image_audio": Aim(TargetSettings())}, every={"image"},
    )  # fmt: skip
    rows = torch.arange(2 * N).view(N, 2)
    found = task.loss(Batch(torch.eye(N), {"image": rows}))
    logits = 5 * F.normalize(frames, dim=1) @ F.normalize(sounds, dim=1).T
    to_frames = logits.T.log_softmax(1)  # each sound over all frames, half of it on each of its own
    of_sounds = torch.stack([to_frames[i, 2 * i : 2 * i + 2].mean() for i in range(N)])
    to_sounds = logits.log_softmax(1)[torch.arange(2 * N), torch.arange(2 * N) // 2]
    torch.testing.assert_close(found, -(of_sounds.mean() + to_sounds.mean()))


class Dropping(nn.Module):
    """An encoder with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(N, D)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.drop(x))


def test_the_own_teacher_is_a_frozen_copy_in_eval_mode() -> None:
    encoder = Dropping().train()
    text = Dropping().train()
    teacher = OwnTeacher(encoder, text, chunk=4)
    batch = Batch(torch.eye(N), {"text": torch.eye(N)})
    before = teacher(batch)
    wanted = nn.functional.linear(torch.eye(N), encoder.linear.weight, encoder.linear.bias)
    torch.testing.assert_close(before[0], wanted)
    with torch.no_grad():
        encoder.linear.weight.zero_()
        text.linear.weight.zero_()
    after = teacher(batch)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))
    assert encoder.training and text.training and not before[1].requires_grad
    task = Contrast(encoder, {"text": text}, aims={"audio_text": Aim(TargetSettings(), [teacher])})
    assert {name.split(".")[0] for name in task.state_dict()} == {"encoder", "trained", "scales"}
    assert sum(1 for _ in task.parameters()) == 5  # two of each encoder, and the scale


# ---- the commands ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with shards, a CLIP, gold pairs, a VA model, and its stores of sounds and captions."""
    folder = toy_world(tmp_path_factory.mktemp("world"))
    pretrain_va(va_settings(folder, folder / "va", max_steps=4))
    rows = [json.loads(line) for line in (folder / "gold.jsonl").read_text().splitlines()]
    texts = sorted({row["caption"] for row in rows})
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts))
    for what, data in (("audio", "shards"), ("text", "texts.txt")):
        embed.run(Embed(what=what, data=str(folder / data), out=str(folder / f"{what}.store"),
                        model=str(folder / "va"), device="cpu"))  # fmt: skip
    return folder


def teacher(world: Path) -> str:
    return f"{world / 'audio.store'}:{world / 'text.store'}"


@pytest.mark.parametrize("values", [
    {"targets": {"kind": "soft"}, "loss": {"logit_max": 12}, "grad_cache": 2},
    {"targets": {"kind": "estimated", "weight": 0.5}, "accumulate": 2,
     "text": {"kind": "clip", "projection": {"kind": "residual"}},
     "project": {"kind": "residual"}},
], ids=["soft", "both sides"])  # fmt: skip
def test_a_resumed_run_with_targets_is_exact(world, tmp_path, monkeypatch, values) -> None:
    train_at(at_settings(world, tmp_path / "whole", items="pairs", max_steps=7, **values))
    settings = at_settings(world, tmp_path / "cut", items="pairs", max_steps=7, **values)
    with monkeypatch.context() as patch:
        stop_at(5 * settings.accumulate, patch)
        with pytest.raises(Stop):
            train_at(settings)
    train_at(settings.model_copy(update={"resume": True}))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")
    assert results_of(tmp_path / "cut")["data"]["teachers"] == [{"self": "OwnTeacher"}]


def test_processes_share_the_targets_of_one_batch(world, tmp_path) -> None:
    """In two processes, both sides trained in chunks, with replay within each batch."""
    common: dict[str, Any] = {
        "targets": {"kind": "estimated", "weight": 0.5, "teachers": [teacher(world)]},
        "text": {"kind": "clip"}, "batch_size": 9, "grad_cache": 2, "log_every": 1, "max_steps": 3,
        "optim": LarsSettings(lr_weight=5.0, lr_bias=0.1),
        "replay": {"pairs": str(world / "gold.jsonl"), "ratio": 0.2},
    }  # fmt: skip
    for count in (1, 2):
        train_at(at_settings(world, tmp_path / f"{count}", processes=count, **common))
    assert column(tmp_path / "2") == pytest.approx(column(tmp_path / "1"), rel=1e-5)
    assert far_apart(tmp_path / "1", tmp_path / "2") < 1e-5


@pytest.mark.parametrize("frames", ["all", "mean"])
def test_pretraining_with_soft_targets_of_the_frames(world, tmp_path, frames) -> None:
    settings = va_settings(
        world, tmp_path / "soft", frames=frames, max_steps=3,
        targets={"kind": "soft", "target": "softmax", "weight": 0.5},
    )  # fmt: skip
    pretrain_va(settings)
    plain = settings.model_copy(
        update={"out": str(tmp_path / "plain"), "targets": TargetSettings()}
    )
    pretrain_va(plain)
    losses = column(tmp_path / "soft"), column(tmp_path / "plain")
    assert all(0 < soft < hard for soft, hard in zip(*losses, strict=True))


def test_a_stored_teacher_is_the_model_that_made_it(world, tmp_path) -> None:
    """Sounds without crops or masks: what the stores hold is what the frozen copy finds."""
    for name, teachers in (("own", ()), ("stored", (teacher(world),))):
        train_at(at_settings(
            world, tmp_path / name, max_steps=3, log_every=1, mask={"time": 0, "freq": 0},
            pairs=str(gold_of_short(world)), optim=AdamSettings(lr=1e-4),
            targets={"kind": "estimated", "teachers": teachers},
        ))  # fmt: skip
    found = column(tmp_path / "stored")
    assert found == pytest.approx(column(tmp_path / "own"), rel=2e-3)  # float16 in the stores
    said = results_of(tmp_path / "stored")["data"]["teachers"][0]
    assert said["stores"] == [str(world / "audio.store"), str(world / "text.store")]


def gold_of_short(world: Path) -> Path:
    """Pairs of the clips that need no crop."""
    return toy.write_gold(world / "short.jsonl", [i for i in range(20) if i % 5])


def test_teachers_that_lack_something_are_named(world, tmp_path) -> None:
    audio, text = str(world / "audio.store"), str(world / "text.store")

    def refused(error: type[Exception], message: str, **values: Any) -> None:
        with pytest.raises(error, match=message):
            train_at(at_settings(world, tmp_path / "run", **values))
        assert not (tmp_path / "run").exists()

    def taught(stores: str) -> dict[str, Any]:
        return {"targets": {"kind": "estimated", "teachers": [stores]}}

    (tmp_path / "few.txt").write_text("a dog\na cat\n")
    embed.run(Embed(what="text", data=str(tmp_path / "few.txt"), out=str(tmp_path / "few"),
                    model=str(world / "va"), device="cpu"))  # fmt: skip
    shutil.copytree(text, tmp_path / "foreign")
    manifest = json.loads((tmp_path / "foreign" / "manifest.json").read_text())
    manifest |= {"weights_hash": "0" * 64, "model": {"audio_hash": "1" * 64, "text_hash": "0" * 64}}
    (tmp_path / "foreign" / "manifest.json").write_text(json.dumps(manifest))
    refused(StoreError, "are not of one model", **taught(f"{audio}:{tmp_path / 'foreign'}"))
    refused(StoreError, "lacks 6 of 8 sentences", **taught(f"{audio}:{tmp_path / 'few'}"))
    refused(StoreError, "holds sentences, not sounds", **taught(f"{text}:{text}"))
    toy.toy_shards(tmp_path / "more", clips=4, first=30)
    toy.write_gold(tmp_path / "more.jsonl", range(30, 34))
    more = {"shards": str(tmp_path / "more"), "pairs": str(tmp_path / "more.jsonl")}
    refused(
        StoreError, "lacks 4 of the 4 clips that train, the first 'clip30'",
        **taught(f"{audio}:{text}"), **more, batch_size=2,
    )  # fmt: skip
    refused(
        SettingsError, "kind soft needs a teacher", model="", clip={"model": str(world / "clip")},
        audio=toy.AUDIO, encoder=toy.ENCODER, targets={"kind": "soft"},
    )  # fmt: skip


def test_stores_with_nan_do_not_reach_the_loss(world, tmp_path) -> None:
    store = EmbeddingStore.open(world / "audio.store")
    vectors = np.array(store.vectors)
    vectors[:, 0, 0] = math.nan
    for path in store.path.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    np.save(tmp_path / "vectors.npy", vectors)
    stores = f"{tmp_path}:{world / 'text.store'}"
    with pytest.raises(StoreError, match=r"holds NaN or infinite vectors; embed again"):
        train_at(
            at_settings(world, tmp_path / "run", targets={"kind": "soft", "teachers": [stores]})
        )


@pytest.mark.parametrize(("message", "values"), [
    ("--targets.weight is for", {"weight": 0.5}),
    ("--targets.teachers is for", {"kind": "same_recording", "teachers": ["a:b"]}),
    ("--targets.target is for --targets.kind soft", {"kind": "estimated", "target": "softmax"}),
    ("'a' is not AUDIO_STORE:TEXT_STORE", {"kind": "soft", "teachers": ["a"]}),
])  # fmt: skip
def test_targets_that_contradict_themselves_are_refused(message, values) -> None:
    with pytest.raises(ValueError, match=message):
        TargetSettings(**values)


def test_targets_that_a_command_cannot_have_are_refused() -> None:
    common = {"shards": "s", "out": "o"}
    with pytest.raises(ValueError, match="the frozen CLIP is the teacher"):
        PretrainVa(**common, targets={"kind": "estimated"})
    with pytest.raises(ValueError, match="kind soft is for sounds and captions; give --terms"):
        TrainAt(**common, pairs="p", targets={"kind": "soft"},
                terms={"audio_text": 0, "image_audio": 1})  # fmt: skip
    with pytest.raises(ValueError, match="it goes with --items clips"):
        TrainAt(**common, pairs="p", redraw=True, items="pairs")


def test_a_gradient_is_shortened_to_its_limit(world, tmp_path) -> None:
    """LARS moves biases by rate x gradient, so a tiny gradient leaves them where they were."""
    moved = []
    for name, most in (("free", None), ("short", 1e-7)):
        train_at(at_settings(world, tmp_path / name, max_steps=3, max_grad=most, warmup_epochs=0,
                             optim=LarsSettings(lr_weight=1e-9, lr_bias=100.0)))  # fmt: skip
        moved.append(far_apart(tmp_path / name, world / "va"))
    assert moved[0] > 1e-3 and moved[1] < 1e-4


def test_training_on_held_out_clips_stops(world, tmp_path) -> None:
    held = {"held_out": (str(world / "shards"),)}
    with pytest.raises(DataError, match="20"):
        train_at(at_settings(world, tmp_path / "at", **held))
    with pytest.raises(DataError, match="20"):
        pretrain_va(va_settings(world, tmp_path / "va", **held))
    assert not (tmp_path / "at").exists() and not (tmp_path / "va").exists()
    allowed = held | {"allow_overlap": held["held_out"], "max_steps": 1}
    train_at(at_settings(world, tmp_path / "at", **allowed))
    assert results_of(tmp_path / "at")["data"]["held_out"][0]["allowed"]
