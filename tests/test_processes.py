"""Several processes share a batch: gradients, weights and resumption are those of one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch

from pivot.data.batches import va_batches
from pivot.errors import DataError, RunError, SettingsError
from pivot.settings import FitSettings, LarsSettings, MaskSettings, PretrainVa, TermSettings
from pivot.training.commands import pretrain_va, train_at
from pivot.training.processes import with_processes
from tests import gang, toy
from tests.toy_runs import at_settings, column, far_apart, results_of, rows_of, toy_world
from tests.toy_runs import va_settings as plain_settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_world(tmp_path_factory.mktemp("world"))


def va_settings(world: Path, out: Path, **values: Any) -> PretrainVa:
    """20 clips in batches of 7, 7 and 6: the parts of two processes differ."""
    optim = LarsSettings(lr_weight=5.0, lr_bias=0.1)
    mask = MaskSettings(rule="vip_ant", time=6, freq=4)
    common: dict[str, Any] = {"batch_size": 7, "optim": optim, "mask": mask, "log_every": 1}
    return plain_settings(world, out, **(common | values))


# ---- the same numbers --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(world: Path) -> Path:
    """A run of one process."""
    pretrain_va(va_settings(world, world / "alone"))
    return world / "alone"


@pytest.mark.parametrize("values", [
    {"processes": 2},
    {"processes": 2, "grad_cache": 2},
], ids=["2", "2 in chunks"])  # fmt: skip
def test_processes_train_what_one_does(world, alone, tmp_path, values) -> None:
    assert pretrain_va(va_settings(world, tmp_path / "run", **values)) == 0
    assert column(tmp_path / "run") == pytest.approx(column(alone), rel=1e-5)
    assert far_apart(tmp_path / "run", alone) < 1e-5
    log = (tmp_path / "run" / "log.txt").read_text()
    assert log.count("peak rate") == 2 and "fp32 on cpu in 2 processes" in log
    results = results_of(tmp_path / "run")
    assert results["processes"] == 2 and results["peak_rates"] == results_of(alone)["peak_rates"]
    assert [row["step"] for row in rows_of(tmp_path / "run")] == list(range(1, 11))


def test_more_processes_than_clips_of_the_last_batch_change_nothing(world, tmp_path) -> None:
    """Batches of 6, 6, 6 and 2: two of four processes have no clip of the last, and three terms."""
    terms = TermSettings(image_audio=0.5, image_text=1)
    common = {"terms": terms, "optim": LarsSettings(lr_weight=5.0, lr_bias=0.1), "log_every": 1}
    common |= {"model": "", "clip": {"model": str(world / "clip")}, "audio": toy.AUDIO}
    common |= {"encoder": toy.ENCODER, "accumulate": 2, "max_steps": 4}
    for count in (1, 4):
        train_at(at_settings(world, tmp_path / f"{count}", processes=count, **common))
    for name in ("loss", "loss_audio_text", "loss_image_text", "scale_image_audio"):
        found = column(tmp_path / "4", name)
        assert found == pytest.approx(column(tmp_path / "1", name), rel=1e-5), name
    assert far_apart(tmp_path / "1", tmp_path / "4") < 1e-5


def test_parts_are_the_batch(world) -> None:
    from tests.test_training import sounds_of

    batches = va_batches(sounds_of(world / "shards"), "mean", 7, toy.MASK, 3)
    for m in (0, 2):
        whole = batches[m]
        parts = [batches.part(m, rank, 4) for rank in range(4)]
        assert [len(part.fbank) for part in parts] == ([2, 2, 2, 1] if m == 0 else [2, 2, 1, 1])
        assert torch.equal(torch.cat([part.fbank for part in parts]), whole.fbank)
        rows = torch.cat([part.rows["image"] for part in parts])
        assert torch.equal(rows, whole.rows["image"])


# ---- resumption and mistakes -------------------------------------------------------------------


def kill_one(out: Path, rows: int, seen: list[int]) -> None:
    """Kill a process of a run once it has written so many rows."""
    path = out / "metrics.jsonl"
    wait_until(lambda: path.exists() and path.read_text().count("\n") >= rows)
    child = active_children()[-1]
    assert child.pid is not None
    seen.append(child.pid)
    os.kill(child.pid, signal.SIGKILL)


@pytest.mark.parametrize("after", [1, 2])
def test_a_killed_run_goes_on_in_any_number_of_processes(world, tmp_path, after) -> None:
    common = {"max_steps": 30}
    pretrain_va(va_settings(world, tmp_path / "whole", **common))
    settings = va_settings(world, tmp_path / "cut", processes=2, **common)
    killed: list[int] = []
    killer = threading.Thread(target=kill_one, args=(tmp_path / "cut", 5, killed))
    killer.start()
    with pytest.raises(RunError, match=r"process \d of 2 ended with status .*; --resume goes on"):
        pretrain_va(settings)
    killer.join()
    assert killed and not active_children()
    assert not (tmp_path / "cut" / "results.json").exists()
    pretrain_va(settings.model_copy(update={"resume": True, "processes": after}))
    assert column(tmp_path / "cut", "step") == list(range(1, 31))
    whole = column(tmp_path / "whole")
    assert column(tmp_path / "cut") == pytest.approx(whole, rel=1e-4)
    assert far_apart(tmp_path / "cut", tmp_path / "whole") < 1e-4


def test_what_cannot_be_split_is_refused_in_one_line(world, tmp_path) -> None:
    for values, error, message in (
        ({"batch_size": 2, "processes": 3}, SettingsError, "--batch-size 2 cannot be split over 3"),
        ({"shards": "no/such", "processes": 2}, Exception, "no/such is not a folder of shards"),
    ):
        with pytest.raises(error, match=message) as caught:
            pretrain_va(va_settings(world, tmp_path / "out", **values))
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "out").exists() and not active_children()


def settings_of(out: Path, processes: int = 2) -> FitSettings:
    return FitSettings(out=str(out), processes=processes, device="cpu")


def test_one_process_acts_for_all(tmp_path) -> None:
    assert with_processes(gang.report, settings_of(tmp_path, 3)) == 0
    facts = [(tmp_path / f"rank{rank}").read_text() for rank in range(3)]
    assert facts == ["0 3 True True", "1 3 False False", "2 3 False False"]


def test_a_mistake_or_a_crash_of_one_ends_all(tmp_path) -> None:
    with pytest.raises(DataError, match=f"{tmp_path} cannot be used"):
        with_processes(gang.fail, settings_of(tmp_path))
    with pytest.raises(RunError, match="process 1 of 2 ended with status 7"):
        with_processes(gang.crash, settings_of(tmp_path))
    assert not active_children()


def test_torchrun_starts_the_same_and_the_first_speaks_for_all(tmp_path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command = [*launch, "-m", "tests.gang", "report", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    facts = [(tmp_path / f"rank{rank}").read_text() for rank in range(2)]
    assert facts == ["0 2 True True", "1 2 False False"]
    assert done.stdout == "said by 0\n"


def test_a_killed_parent_takes_its_processes_with_it(tmp_path) -> None:
    command = [sys.executable, "-m", "tests.gang", "wait", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT) as parent:
        try:
            pids = [int(wait_for(tmp_path / f"pid{rank}")) for rank in range(2)]
            assert all(map(alive, pids))
        finally:
            parent.kill()
    wait_until(lambda: not any(map(alive, pids)))


def wait_until(happens: Callable[[], bool]) -> None:
    """Return once something is so; fail when it takes far too long."""
    end = time.monotonic() + 120
    while not happens():
        assert time.monotonic() < end, "waited for two minutes"
        time.sleep(0.005)


def wait_for(path: Path) -> str:
    """Text of a file, once it is there."""
    wait_until(lambda: path.exists() and path.read_text() != "")
    return path.read_text()


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
