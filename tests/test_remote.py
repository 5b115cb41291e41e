"""Shards behind a URL: the same answers as from a disk, and one line for what goes wrong."""

import functools
import http.server
import pickle
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pytest
from torch.utils.data import DataLoader

from pivot.audio.frontend import resolve_norm
from pivot.data import measure
from pivot.data.captions import read_captions
from pivot.data.clips import ClipDataset, ClipSampler
from pivot.errors import DataError, SettingsError
from pivot.settings import AudioSettings, MeasureFbank
from tests.test_clip_dataset import IDS, flat, picture, small
from tests.test_shards import wave_of, write
from video_prep.errors import UserError
from video_prep.shards import SOUND, ShardFolder
from video_prep.storage.remote import RemoteFiles, is_url

pytestmark = pytest.mark.filterwarnings("ignore:This process is multi-threaded:DeprecationWarning")
AUDIO = AudioSettings(sample_rate=8000, num_mel_bins=8, frame_length_ms=20)


class Whole(http.server.SimpleHTTPRequestHandler):
    """A server that sends whole files, whatever range is asked for."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str, str | None]]] = []

    def log_message(self, *_: Any) -> None: ...

    def parse_request(self) -> bool:
        fine = super().parse_request()
        if fine:
            self.asked.append((self.command, self.path, self.headers["Range"]))
        return fine


class Ranged(Whole):
    """A server that sends the range of bytes that is asked for."""

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        file = Path(self.translate_path(self.path))
        if wanted is None or not file.is_file():
            super().do_GET()
            return
        data = file.read_bytes()
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        if first >= len(data):
            self.send_error(416)
            return
        part = data[first : last + 1]
        self.send_response(206)
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("remote") / "shards"
    return write(path, IDS, per_shard=4, silent={"c03"}, picture=picture)


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "shards")


@contextmanager
def serving(folder: Path, handler: type[Whole] = Ranged) -> Iterator[str]:
    bound = functools.partial(handler, directory=str(folder.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), bound) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{folder.name}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def ranged(folder: Path) -> Iterator[str]:
    with serving(folder) as url:
        yield url


@pytest.fixture
def in_memory(folder: Path) -> Iterator[str]:
    fs, root = fsspec.filesystem("memory"), "/bucket/shards"
    fs.pipe({f"{root}/{file.name}": file.read_bytes() for file in folder.iterdir()})
    yield f"memory:/{root}"
    fs.rm("/bucket", recursive=True)


@pytest.fixture(params=["in_memory", "ranged"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


def says(url: str) -> str:
    with pytest.raises(UserError) as caught:
        ShardFolder(url)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- what works ------------------------------------------------------------------------------


def test_same_answers_as_from_a_disk(folder: Path, url: str) -> None:
    local = ShardFolder(folder)
    for path in (url, f"{url}/"):
        remote = ShardFolder(path)
        assert remote.path == url
        assert (remote.ids, remote.fingerprint) == (local.ids, local.fingerprint)
    wanted = [(i, k) for i in range(len(local)) for k in range(3)]
    assert remote.read(wanted) == local.read(wanted)
    assert remote.frame(6, 2) == picture(6, 2)
    assert np.array_equal(remote.sound(6)[0], wave_of(6))
    assert list(remote.all_facts()) == list(local.all_facts())
    assert remote.labels(2) == ("l2",)
    heard = ShardFolder(url, sound=True)
    assert len(heard) == len(IDS) - 1 and heard.ids_without_sound == ["c03"]
    with pytest.raises(UserError, match=r"clip 'c03' of .*://.* has no sound"):
        remote.sound(3)
    remote.close()
    assert remote.frame(0, 0) == picture(0, 0)


def test_a_read_asks_for_its_bytes_alone(ranged: str, folder: Path) -> None:
    shards = ShardFolder(ranged)
    Whole.asked.clear()
    shards.read([(5, 1), (5, SOUND)])
    places = [shards._places[5, member].tolist() for member in (1, SOUND)]
    assert sorted(Whole.asked, key=str) == sorted(
        (("GET", "/shards/shard-00001.tar", f"bytes={at}-{at + length - 1}")
         for at, length in places),
        key=str,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [0, 1])
def test_dataset_and_forked_workers(url: str, workers: int) -> None:
    dataset = ClipDataset(url, seed=5, transform=small)
    expected = {i for i in IDS if i != "c03"}
    for _ in range(2):  # a connection is there when the second workers are forked
        loader = DataLoader(
            dataset,
            3,
            sampler=ClipSampler(dataset, rank=0, world_size=1),
            collate_fn=list,
            num_workers=workers,
            multiprocessing_context="fork" if workers else None,
            timeout=30 if workers else 0,
        )
        rows = flat(loader)
        assert {row[0] for row in rows} == expected and len(rows) == len(expected)
        assert all(IDS[row[1]] == row[0] for row in rows)
        assert dataset[0] == small(ClipDataset(url, seed=5)[0])


def test_pickle_and_threads(url: str) -> None:
    shards = pickle.loads(pickle.dumps(ShardFolder(url)))
    wrong: list[int] = []

    def read() -> None:
        wrong.extend(i for i in range(len(IDS)) if shards.frame(i, 1) != picture(i, 1))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_commands_take_urls(folder: Path, url: str, tmp_path: Path) -> None:
    captions = read_captions(url)
    assert [caption.clip for caption in captions] == [i for i in IDS for _ in "ab"]
    out = tmp_path / "fbank.json"
    with pytest.raises(SettingsError, match="name the file with --out"):
        measure.run(MeasureFbank(shards=url, audio=AUDIO))
    measure.run(MeasureFbank(shards=url, audio=AUDIO, out=str(out)))
    norm = resolve_norm(AUDIO.model_copy(update={"norms": str(out)}))
    with pytest.raises(DataError, match=r"fbank\.json does not exist"):
        resolve_norm(AUDIO, url)
    shutil.copy(out, folder / "fbank.json")  # uploaded with the shards
    if url.startswith("memory"):
        fsspec.filesystem("memory").pipe("/bucket/shards/fbank.json", out.read_bytes())
    found = resolve_norm(AUDIO, url)
    assert (found.mean, found.std) == (norm.mean, norm.std)
    assert found.source == f"{url}/fbank.json"


# ---- what goes wrong -------------------------------------------------------------------------


def test_is_url() -> None:
    assert is_url("s3://bucket/shards") and is_url("simplecache::http://host/shards")
    assert not is_url("shards") and not is_url(Path("/data/shards"))


def test_unknown_protocols_and_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "nope://b/shards is of a protocol that is not known" in says("nope://b/shards")
    for name in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, name, None)
    assert says("s3://b/shards").endswith("pip install 'pivot-audio[s3]'")
    assert says("gs://b/shards").endswith("pip install 'pivot-audio[gcs]'")


def test_missing_files_are_named(ranged: str, folder: Path) -> None:
    base = ranged.rpartition("/")[0]
    assert f"{base}/gone holds no manifest.json" in says(f"{base}/gone")
    assert "memory://nowhere holds no manifest.json" in says("memory://nowhere")
    (folder / "shard-00001.json").rename(folder / "aside")
    assert "shard-00001.json does not exist; upload the whole folder again" in says(ranged)
    (folder / "shard-00002.tar").unlink()
    assert "shard-00002.tar is missing; upload the whole folder again" in says(ranged)
    (folder / "manifest.json").unlink()
    assert "holds no manifest.json" in says(ranged)
    (folder / "plan.json").write_text("{}")
    assert "is not finished" in says(ranged)


def test_truncated_objects(ranged: str, folder: Path) -> None:
    tar = folder / "shard-00001.tar"
    data = tar.read_bytes()
    tar.write_bytes(data[:-700])
    assert f"shard-00001.tar has {len(data) - 700} bytes, not {len(data)}" in says(ranged)
    tar.write_bytes(data)
    shards = ShardFolder(ranged)
    offset, length = shards._places[5, SOUND].tolist()
    for left, found in ((offset + 10, 10), (offset - 600, 0)):  # damaged after it was opened
        tar.write_bytes(data[:left])
        with pytest.raises(UserError, match=rf"ends after {found} of {length} bytes; upload"):
            shards.sound(5)
    tar.unlink()
    with pytest.raises(UserError, match=r"shard-00001\.tar does not exist; upload"):
        shards.sound(5)


def test_server_without_ranges(folder: Path) -> None:
    with serving(folder, Whole) as url:
        Whole.asked.clear()
        assert "the server sends whole files" in says(url)
        assert not any(path.endswith(".tar") for _, path, _ in Whole.asked)


def test_server_that_is_gone(folder: Path) -> None:
    with serving(folder) as url:
        shards = ShardFolder(url)
    shards.close()
    fsspec.filesystem("http").clear_instance_cache()
    message = says(url)
    assert "manifest.json cannot be read (ClientConnectorError" in message
    assert "check the URL, the network and your credentials" in message


def test_refused_access(folder: Path) -> None:
    class Refusing(Ranged):
        def do_GET(self) -> None:
            self.send_error(403)

    with serving(folder, Refusing) as url:
        assert "cannot be read (ClientResponseError: 403" in says(url)


def test_whole_files_in_order_over_several_calls(
    in_memory: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("video_prep.storage.remote.FILES_A_CALL", 2)
    names = sorted(file.name for file in folder.glob("*.json"))
    assert len(names) == 4
    found = list(RemoteFiles(in_memory).whole(names))
    assert found == [(folder / name).read_bytes() for name in names]
