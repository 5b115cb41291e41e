"""Fixtures that every station's tests share: goldens and real data, where present."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
