"""Stores made in parts: the same bytes however many processes, whenever killed, whoever joins."""

from __future__ import annotations

import json
import multiprocessing
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pivot.embeddings import embed, writer
from pivot.embeddings.parts import Part
from pivot.embeddings.sources import is_shards
from pivot.embeddings.store import EmbeddingStore
from pivot.embeddings.writer import StoreWriter
from pivot.errors import NothingUsableError, SettingsError, StoreError, UserError
from pivot.settings import AudioSettings, Embed
from tests import toy
from tests.store_work import COUNT, IDENTITY, STEP, embed_part, ids, join_together, vectors, work
from video_prep.shards import ShardFolder

ROOT = Path(__file__).resolve().parent.parent


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def whole(tmp_path: Path) -> dict[str, bytes]:
    work(tmp_path / "whole", Part())
    return content(tmp_path / "whole")


# ---- ranges ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 7, 36, 37, 40, 1000])
@pytest.mark.parametrize("of", [1, 2, 3, 7, 50])
def test_parts_cover_the_inputs_at_batch_boundaries(count: int, of: int) -> None:
    found = [Part(k, of).inputs(count, STEP) for k in range(1, of + 1)]
    assert found[0].start == 0 and found[-1].stop == count
    assert all(a.stop == b.start for a, b in pairwise(found))
    assert all(inputs.start % STEP == 0 or not inputs for inputs in found)
    batches = [-(-len(inputs) // STEP) for inputs in found]
    assert max(batches) - min(batches) <= 1


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "/", "1/0", "-1/2", "1.5/2", "a/b", ""])
def test_a_part_that_is_none_is_named(text: str) -> None:
    with pytest.raises(SettingsError, match=f"--part {re.escape(text)} is not K/N"):
        Part.read(text)
    assert Part.read("2/8") == Part(2, 8) and Part.read(None) == Part(1, 1)


# ---- parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 1, 2), (2, 3, 1)])
def test_the_last_part_joins_to_the_bytes_of_one_process(
    tmp_path: Path, whole: dict[str, bytes], order: tuple[int, ...]
) -> None:
    path = tmp_path / "s"
    found = [work(path, Part(k, 3)) for k in order]
    assert found[:2] == [None, None] and found[2] is not None and len(found[2]) == COUNT - 1
    assert content(path) == whole
    assert sorted(whole) == ["failures.jsonl", "ids.json", "manifest.json", "vectors.npy"]
    assert work(path, Part(1, 3)) is not None and content(path) == whole


def test_more_parts_than_batches(tmp_path: Path, whole: dict[str, bytes]) -> None:
    stores = [work(tmp_path / "s", Part(k, 15)) for k in range(1, 16)]
    assert content(tmp_path / "s") == whole
    assert stores[-1] is not None and stores[0] is None


def test_a_part_goes_on_and_knows_who_is_left(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PART_ITEMS", STEP)
    path = tmp_path / "s"
    embed_part(path, Part(2, 3), stop=20)
    made = StoreWriter(path, IDENTITY, ids(COUNT), Part(2, 3), STEP)
    assert (made.inputs, made.next) == (range(12, 24), 20)
    assert not made.join() and made.left == {1: 12, 2: 4, 3: 13}
    work(path, Part(3, 3))
    work(path, Part(1, 3))
    with pytest.raises(StoreError, match="is not finished"):
        EmbeddingStore.open(path)
    work(path, Part(2, 3))
    assert content(path) == whole


def test_a_part_that_two_processes_do_is_done_once(
    tmp_path: Path, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They write different files of the same inputs, as the clock says; a path through is found."""
    path = tmp_path / "s"
    for items, stop in ((8, 24), (12, 12)):
        monkeypatch.setattr(writer, "PART_ITEMS", items)
        made = StoreWriter(path, IDENTITY, ids(COUNT), Part(1, 1), STEP)
        made.next = made._start = 0
        while made.next < stop:
            made.add(vectors(COUNT)[made.next : made.next + STEP], STEP)
    names = sorted(p.name for p in path.glob("part-*"))
    assert [name[5:-4] for name in names] == [
        "000000000-000000008", "000000000-000000012", "000000008-000000016", "000000016-000000024",
    ]  # fmt: skip
    made = StoreWriter(path, IDENTITY, ids(COUNT), Part(), STEP)
    assert made.next == 24
    made.add(vectors(COUNT)[24:], COUNT - 24)
    store = made.finish()
    assert store is not None and store.ids == ids(COUNT)
    np.testing.assert_array_equal(store.vectors, vectors(COUNT).astype(np.float16))


def test_all_may_begin_and_join_at_once(tmp_path: Path, whole: dict[str, bytes]) -> None:
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(3)
    workers = [
        context.Process(target=join_together, args=(tmp_path, Part(k, 3), 12, barrier))
        for k in (1, 2, 3)
    ]
    for process in workers:
        process.start()
    for process in workers:
        process.join(120)
    assert [process.exitcode for process in workers] == [0, 0, 0]
    for number in range(12):
        assert content(tmp_path / str(number)) == whole


DEADLY = """
import os, signal, sys
from pathlib import Path
from pivot.embeddings import writer
from pivot.embeddings.parts import Part
from tests.store_work import work

writer.PART_ITEMS = 8
replace, unlink = Path.replace, Path.unlink

def child(folder, steps):
    left = [steps]
    def step():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    def replace_and_die(path, target):
        replace(path, target)
        step()
    def unlink_and_die(path, missing_ok=False):
        there = path.exists() and not path.name.startswith(".tmp-")
        unlink(path, missing_ok)
        if there:
            step()
    Path.replace, Path.unlink = replace_and_die, unlink_and_die
    work(folder, Part(1, 2))
    work(folder, Part(2, 2))
    os._exit(0)

def forked(folder, steps):  # starting Python anew would take longer
    pid = os.fork()
    return os.waitpid(pid, 0)[1] if pid else child(folder, steps)

steps, status = 0, signal.SIGKILL
while status == signal.SIGKILL:
    steps += 1
    folder = Path(sys.argv[1], str(steps))
    status = forked(folder, steps)
    assert status == 0 or forked(folder, 0) == 0
print(status, steps)
"""


def test_kill_9_after_any_file(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """A process dies right after it has named or removed its n-th file, for every n."""
    run = subprocess.run(
        [sys.executable, "-c", DEADLY, str(tmp_path / "s")], cwd=ROOT, capture_output=True
    )
    assert run.returncode == 0, run.stderr.decode()
    # 3 + 3 parts; failures, vectors, ids and manifest; then 6 parts and unfinished.json removed
    assert run.stdout.split() == [b"0", b"18"]
    assert all(content(folder) == whole for folder in (tmp_path / "s").iterdir())


def test_nothing_usable_in_any_part(tmp_path: Path) -> None:
    for number in (1, 2):
        made = StoreWriter(tmp_path / "s", IDENTITY, ids(4), Part(number, 2), 2)
        bad = [{"id": made.ids[i], "error": "bad"} for i in made.inputs]
        made.add(np.empty((0, 1, 4), np.float32), 2, [], bad)
        if number == 1:
            assert made.finish() is None
    with pytest.raises(NothingUsableError, match="none of 4"):
        made.finish()
    assert [p.name for p in (tmp_path / "s").iterdir()] == ["failures.jsonl"]
    assert len((tmp_path / "s" / "failures.jsonl").read_text().splitlines()) == 4


# ---- refusals --------------------------------------------------------------------------------


def test_another_number_of_parts_or_batch_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    work(path, Part(1, 3))
    before = content(path)
    for part in (Part(1, 4), Part(), Part(2, 2)):
        with pytest.raises(StoreError, match=rf"begun in 3 parts, not {part.of}; use --part K/3"):
            work(path, part)
    with pytest.raises(StoreError, match="unfinished store with another batch size"):
        StoreWriter(path, IDENTITY, ids(COUNT), Part(1, 3), STEP + 1)
    with pytest.raises(StoreError, match="unfinished store with another encoder"):
        StoreWriter(path, {**IDENTITY, "weights_hash": "x"}, ids(COUNT), Part(1, 3), STEP)
    assert content(path) == before


def test_damaged_leftovers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "s"
    work(path, Part(1, 2))
    part = next(path.glob("part-*"))
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(StoreError, match=rf"{part.name} is missing or damaged; delete it"):
        work(path, Part(2, 2))
    (path / "unfinished.json").write_text("{")
    with pytest.raises(StoreError, match=r"unfinished\.json is damaged"):
        work(path, Part(2, 2))


# ---- pivot embed -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    toy.toy_shards(folder / "shards", clips=11, silent=(3, 8))
    toy.toy_model(folder)
    (folder / "captions.txt").write_text("".join(f"a {w}\n" for w in "dog cat bell car".split()))
    return folder


def settings(world: Path, out: Path, what: str, **values: Any) -> Embed:
    common = {
        "what": what,
        "data": str(world / ("captions.txt" if what == "text" else "shards")),
        "model": str(world / "model"),
        "out": str(out),
        "batch_size": 1 if what == "text" else 4,
        "device": "cpu",
    }
    return Embed(**(common | values))


@pytest.mark.parametrize("what", ["image", "audio", "text"])
def test_embed_in_parts_is_embed(world: Path, tmp_path: Path, what: str, capsys: Any) -> None:
    with toy.one_thread():
        assert embed.run(settings(world, tmp_path / "one", what)) == 0
        for number in (3, 1, 2):
            assert embed.run(settings(world, tmp_path / "s", what, part=f"{number}/3")) == 0
    assert content(tmp_path / "s") == content(tmp_path / "one")
    said = capsys.readouterr().out.splitlines()
    assert any(
        re.search(r"part 3/3 is done; left: part 1 \(\d inputs\), part 2 \(", s) for s in said
    )
    assert embed.run(settings(world, tmp_path / "s", what, part="1/3")) == 0
    assert "complete already" in capsys.readouterr().err


def test_a_part_done_already_says_so(world: Path, tmp_path: Path, capsys: Any) -> None:
    job = settings(world, tmp_path / "s", "text", part="2/3")
    embed.run(job)
    capsys.readouterr()
    assert embed.run(job) == 0
    said = capsys.readouterr()
    assert "part 2/3 of " in said.err and "is done already" in said.err
    assert "left: part 1 (1 inputs), part 3 (2 inputs)" in said.out
    with pytest.raises(StoreError, match=r"begun in 3 parts, not 2; use --part K/3"):
        embed.run(settings(world, tmp_path / "s", "text", part="1/2"))
    with pytest.raises(SettingsError, match="--part 4/3 is not K/N"):
        embed.run(settings(world, tmp_path / "s", "text", part="4/3"))
    embed.run(settings(world, tmp_path / "many", "text", part="1/9"))
    assert "part 1/9 of " in (said := capsys.readouterr()).err and "is empty" in said.err
    assert "part 3 (1 inputs), part 5 (1 inputs), part 7" in said.out


def test_clips_without_sound_are_named_failures_and_keep_their_frames(
    world: Path, tmp_path: Path
) -> None:
    embed.run(settings(world, tmp_path / "a", "audio"))
    sounds = EmbeddingStore.open(tmp_path / "a")
    assert len(sounds) == 9 and sounds.manifest["failed"] == 2 and "clip3" not in sounds.ids
    rows = [json.loads(s) for s in (tmp_path / "a/failures.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == ["clip3", "clip8"]
    assert all("no sound (flag no_audio)" in row["error"] for row in rows)
    embed.run(settings(world, tmp_path / "i", "image"))
    assert EmbeddingStore.open(tmp_path / "i").ids == ShardFolder(world / "shards").ids


def test_shards_behind_a_url_are_embedded_like_local_ones(world: Path, tmp_path: Path) -> None:
    url = f"file://{world / 'shards'}"
    assert is_shards("s3://bucket/shards") and is_shards(url) and not is_shards(tmp_path)
    for what in ("audio", "image"):
        embed.run(settings(world, tmp_path / f"{what}-url", what, data=url))
        embed.run(settings(world, tmp_path / what, what))
        stores = [EmbeddingStore.open(tmp_path / name) for name in (f"{what}-url", what)]
        np.testing.assert_array_equal(stores[0].vectors, stores[1].vectors)
        assert stores[0].manifest["data"]["path"] == url


def test_damaged_shards_stop_the_embedding(world: Path, tmp_path: Path) -> None:
    """They are no clip's own fault, and what is mended is embedded by the same command."""
    shards = toy.toy_shards(tmp_path / "shards", clips=4)
    tar = shards / "shard-00000.tar"
    whole = tar.read_bytes()
    places = json.loads((shards / "shard-00000.json").read_text())["rows"][2]["members"]
    offset, length, _ = places["flac"]
    tar.write_bytes(whole[:offset] + bytes(length) + whole[offset + length :])
    job = settings(world, tmp_path / "s", "audio", data=str(shards), batch_size=2)
    with pytest.raises(UserError, match="the sound of 'clip2' is damaged"):
        embed.run(job)
    tar.write_bytes(whole)
    assert embed.run(job) == 0 and len(EmbeddingStore.open(tmp_path / "s")) == 4


def test_audio_settings_are_for_fbank(world: Path, tmp_path: Path) -> None:
    audio = AudioSettings(num_mel_bins=64)
    with pytest.raises(SettingsError, match="--audio is for pivot embed fbank, not audio"):
        embed.run(settings(world, tmp_path / "s", "audio", audio=audio))
    assert not (tmp_path / "s").exists()
