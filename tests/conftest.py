"""Fixtures that every station's tests share: goldens and real data, where present."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Steps as small as those of the tests are slower on more threads, by far on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with goldens and real data beside the checkout; the test is skipped without it."""
    folder = ROOT.parent / "shared"
    if not (folder / "goldens").is_dir():
        pytest.skip(f"no goldens at {folder}: this test compares with recorded numbers")
    return folder


@pytest.fixture(scope="session")
def goldens(shared: Path) -> Path:
    """Folder with the numbers recorded from the papers' own code."""
    return shared / "goldens"


@pytest.fixture(scope="session")
def realdata(shared: Path) -> Path:
    """Folder with real clips, captions and label lists."""
    folder = shared / "realdata"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten good clips of one second, the k-th beginning with frame 100 k."""
    from tests.media import write_video  # loads PyAV, which most tests never need

    folder = tmp_path_factory.mktemp("videos")
    for k in range(10):
        write_video(folder / f"c{k}.mp4", 12, first=100 * k, size=(96, 64))
    return folder
