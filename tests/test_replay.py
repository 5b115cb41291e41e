"""Replay: a second stream of pairs, by whole batches or within each, in processes and resumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pivot.audio.frontend import FrontEnd, resolve_norm
from pivot.data.batches import Batch, PairTable
from pivot.data.choices import BatchOrder
from pivot.data.pairs import Pairs
from pivot.data.replay import ReplayBatches, replay_seed, shares
from pivot.data.stream import SoundItems
from pivot.errors import DataError, SettingsError
from pivot.settings.targets import ReplaySettings
from pivot.training.commands import pretrain_va, train_at
from tests import toy
from tests.toy_runs import (
    Stop,
    at_settings,
    results_of,
    rows_of,
    stop_at,
    toy_world,
    va_settings,
    weights_of,
)
from video_prep.shards import ShardFolder

SEED = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with shards, other shards, gold pairs of each, and a VA model."""
    folder = toy_world(tmp_path_factory.mktemp("world"))
    toy.toy_shards(folder / "more", clips=8, first=100)
    toy.write_gold(folder / "more.jsonl", range(100, 108))
    pretrain_va(va_settings(folder, folder / "va", max_steps=2))
    return folder


def streams(world: Path, sizes: tuple[int, int], probability: float = 0.0) -> ReplayBatches:
    """Clips 0 to 11 with captions 'a', and 12 to 19 with captions 'b'."""
    front_end = FrontEnd(toy.AUDIO, resolve_norm(toy.AUDIO, world / "shards"))
    sounds = SoundItems(ShardFolder(world / "shards"), front_end, cache_mb=16)
    texts: dict[str, int] = {}
    parts = []
    for i, (numbers, size) in enumerate(zip((range(12), range(12, 20)), sizes, strict=True)):
        ids = [f"clip{n}" for n in numbers]
        pairs = Pairs(ids, ["ab"[i]] * len(ids), [0.0] * len(ids))
        table = PairTable.of(sounds, pairs, texts)
        seed = replay_seed(SEED) if i else SEED
        parts.append(table.batches(sounds, size, toy.MASK, seed, numbered_from=0, short=not i))
    return ReplayBatches(parts[0], parts[1], probability)


def from_second(batch: Batch) -> list[bool]:
    return (batch.rows["clip"][:, 0] >= 12).tolist()


def test_whole_batches_are_replaced_with_a_probability(world) -> None:
    batches = streams(world, (4, 4), 0.4)
    assert batches.per_epoch == 3
    numbers = [batches.replaced(m) for m in range(3000)]
    taken = [number for number in numbers if number is not None]
    assert taken == list(range(len(taken)))  # in their order, none left out
    assert 0.37 < len(taken) / 3000 < 0.43
    for m in range(12):
        batch = batches[m]
        if (number := numbers[m]) is None:
            wanted = batches.first[m]  # the dropped ones are not made up for
            assert from_second(batch) == [False] * 4 and (batch.rows["text"] == 0).all()
        else:
            wanted = batches.second[number]
            assert from_second(batch) == [True] * 4 and (batch.rows["text"] == 1).all()
        assert torch.equal(batch.fbank, wanted.fbank)
    again = streams(world, (4, 4), 0.4)  # from the middle, as a resumed run asks
    assert [again.replaced(m) for m in (2999, 7, 1500)] == [numbers[m] for m in (2999, 7, 1500)]
    assert again.fingerprint() == batches.fingerprint() != batches.first.fingerprint()
    assert [streams(world, (4, 4), 1.0).replaced(m) for m in range(4)] == [0, 1, 2, 3]


def test_a_share_of_every_batch_is_of_the_second_stream(world) -> None:
    batches = streams(world, (4, 3))
    assert batches.per_epoch == 3
    seen = []
    for m in range(6):
        batch = batches[m]
        assert from_second(batch) == [False] * 4 + [True] * 3
        seen += batch.rows["clip"][4:, 0].tolist()
    assert len(set(seen[:6])) == len(set(seen[6:12])) == 6  # 8 clips: two batches, then anew
    assert sorted(batches[0].rows["clip"][:4, 0].tolist()) != sorted(seen[:4])


@pytest.mark.parametrize("probability", [0.0, 0.5])
@pytest.mark.parametrize("processes", [2, 3, 9])
def test_processes_share_the_batch_of_one(world, probability, processes) -> None:
    batches = streams(world, (4, 3), probability)
    for m in range(4):
        whole = batches[m]
        parts = [batches.part(m, rank, processes) for rank in range(processes)]
        assert torch.equal(torch.cat([part.fbank for part in parts]), whole.fbank)
        for side, rows in whole.rows.items():
            assert torch.equal(torch.cat([part.rows[side] for part in parts]), rows)


def test_the_second_stream_has_numbers_of_its_own() -> None:
    first, second = BatchOrder(50, 5, SEED), BatchOrder(50, 5, replay_seed(SEED), short=False)
    assert not np.array_equal(first(0)[1], second(0)[1])
    assert BatchOrder(9, 4, 0, short=False).per_epoch == BatchOrder(8, 4, 0).per_epoch == 2
    assert BatchOrder(11, 4, 0, short=False).per_epoch == 2


def test_shares_of_a_batch() -> None:
    assert shares(ReplaySettings(pairs="x", probability=0.5), 64) == (64, 64)
    assert shares(ReplaySettings(pairs="x", ratio=0.25), 64) == (48, 16)
    with pytest.raises(SettingsError, match=r"ratio 0.01 of --batch-size 6 is 0 clips; each"):
        shares(ReplaySettings(pairs="x", ratio=0.01), 6)


@pytest.mark.parametrize("message, values", [
    ("needs --replay.pairs", {"probability": 0.5}),
    ("one of --replay.probability and --replay.ratio", {"pairs": "x"}),
    ("one of --replay.prob", {"pairs": "x", "probability": 0.5, "ratio": 0.5}),
])  # fmt: skip
def test_settings_that_say_nothing_are_refused(message, values) -> None:
    with pytest.raises(ValueError, match=message):
        ReplaySettings(**values)


@pytest.mark.parametrize("how", [{"probability": 0.5}, {"ratio": 0.34}], ids=["whole", "mixed"])
def test_a_resumed_run_with_replay_is_exact(world, tmp_path, monkeypatch, how) -> None:
    replay = {"pairs": str(world / "more.jsonl"), "shards": str(world / "more")} | how
    values = {"replay": replay, "items": "pairs", "targets": {"kind": "same_recording"}}
    train_at(at_settings(world, tmp_path / "whole", **values))
    settings = at_settings(world, tmp_path / "cut", **values)
    with monkeypatch.context() as patch:
        stop_at(8, patch)
        with pytest.raises(Stop):
            train_at(settings)
    train_at(settings.model_copy(update={"resume": True}))
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert weights_of(tmp_path / "cut") == weights_of(tmp_path / "whole")
    data = results_of(tmp_path / "cut")["data"]
    assert (data["clips"], data["items"], data["replay"]["clips"]) == (20, 40, 8)


def test_clips_of_the_second_stream_are_looked_for_in_its_shards(world, tmp_path) -> None:
    replay = {"pairs": str(world / "more.jsonl"), "probability": 0.5}
    with pytest.raises(DataError, match=r"8 clips that are not in .*shards, the first 'clip100'"):
        train_at(at_settings(world, tmp_path / "run", replay=replay))
    assert not (tmp_path / "run").exists()
    replay["shards"] = str(world / "more")
    with pytest.raises(SettingsError, match=r"--replay.shards cannot be used with a term"):
        train_at(at_settings(world, tmp_path / "run", replay=replay, terms={"image_audio": 1}))
