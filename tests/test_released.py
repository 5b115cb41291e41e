"""A released checkpoint becomes a model: its weights, its settings, and every way it can be bad."""

from __future__ import annotations

import json
import math
import os
import pickle
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pivot.errors import ModelError, RunError, UserError
from pivot.model import load
from pivot.released.command import run
from pivot.released.inert import read_torch_file
from pivot.released.vip_ant import read_checkpoint, setting
from pivot.settings import ImportCheckpoint
from tests.tiny import tiny_clip_folder, tiny_config, write_clip

NORMS = [-4.93839311, 5.75751113]
CFG: dict[str, Any] = {
    "seed": 1213,
    "running": {
        "audio": {"max_len": 100, "norms": NORMS, "window_type": "hanning", "frame_shift": 10},
        "max_audio_len": "${running.audio.max_len}",
        "frame_emb": None,
    },
    "model": {
        "image": {"width": 64},
        "audio": {
            "resolution": ["${running.max_audio_len}", "${running.audio.num_mel_bins}"],
            "pre_encoder": {"stride": [4, 6], "in_channels": 3},
        },
    },
}
CFG["running"]["audio"]["num_mel_bins"] = 32
THEIRS = {"transformer.": "encoder.", "conv1.": "pre_encoder.conv1.", "proj": "post_encoder.proj"}
THEIRS |= {"ln_pre.": "pre_encoder.ln.", "ln_post.": "post_encoder.ln."}
THEIRS |= {name: f"misc.{name}" for name in ("class_embedding", "positional_embedding")}


def renamed(name: str) -> str:
    old = next(key for key in THEIRS if name.startswith(key))
    return THEIRS[old] + name.removeprefix(old)


@pytest.fixture(scope="module")
def tiny(goldens: Path) -> dict[str, Tensor]:
    with np.load(goldens / "vip_ant" / "tiny_tower.npz") as file:
        return {k: torch.tensor(file[k]) for k in file.files if file[k].dtype.kind != "U"}


def audio_head(tiny: dict[str, Tensor], positions: str = "pos_100") -> OrderedDict[str, Tensor]:
    """State dict of the authors' audio head."""
    state = {name[3:]: value for name, value in tiny.items() if name.startswith("sd/")}
    state["positional_embedding"] = tiny[positions]
    return OrderedDict((renamed(name), value.clone()) for name, value in state.items())


LOSS = OrderedDict({"loss_head_va.logit_scale": torch.tensor(3.0)})
LOSS["loss_head_al.logit_scale"] = torch.tensor(2.5)


@pytest.fixture(scope="module")
def clip(tiny: dict[str, Tensor], goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CLIP that the golden's encoder comes from."""
    with np.load(goldens / "vip_ant" / "tiny_text.npz") as file:
        text = {n[3:]: torch.tensor(file[n]) for n in file.files if n.startswith("sd/")}
    config = tiny_config(96, head_width=64)
    config["text_cfg"] |= {"heads": 1, "pool_type": "argmax"}
    weights = {f"visual.{n[3:]}": v for n, v in tiny.items() if n.startswith("sd/")}
    weights |= text | {"logit_scale": torch.tensor(2.6593)}
    words = [f"word{i}" for i in range(96)]
    return write_clip(tmp_path_factory.mktemp("clip"), config, words, weights)


def save(path: Path, model: Any, cfg: Any = CFG) -> Path:
    torch.save({"cfg": cfg, "model": model}, path)
    return path


def command(file: Path, out: Path, clip: Path, **values: Any) -> ImportCheckpoint:
    place = {"checkpoint": str(file), "out": str(out), "clip": {"model": str(clip)}}
    return ImportCheckpoint(**place, **values)


# ---- settings as omegaconf pickles them, without omegaconf ------------------------------------


@contextmanager
def omegaconf() -> Iterator[dict[str, type]]:
    """Modules with omegaconf's names and the state that its objects have when pickled."""
    wanted = {"dictconfig": ["DictConfig"], "listconfig": ["ListConfig"], "nodes": ["AnyNode"]}
    wanted["base"] = ["ContainerMetadata"]
    classes: dict[str, type] = {}
    modules = {"omegaconf": ModuleType("omegaconf")}
    for module, names in wanted.items():
        full = f"omegaconf.{module}"
        modules[full] = ModuleType(full)
        for name in names:
            classes[name] = type(name, (), {"__module__": full})
            setattr(modules[full], name, classes[name])
    sys.modules.update(modules)
    try:
        yield classes
    finally:
        for name in modules:
            del sys.modules[name]


def node(classes: dict[str, type], value: Any, parent: Any = None) -> Any:
    kinds = {dict: "DictConfig", list: "ListConfig"}
    made = classes[kinds.get(type(value), "AnyNode")]()
    about = classes["ContainerMetadata"]()
    about.__dict__.update(ref_type=Any, object_type=type(value), optional=True, key=None)
    made.__dict__.update(_metadata=about, _parent=parent)
    if isinstance(value, dict):
        made._content = {key: node(classes, item, made) for key, item in value.items()}
    elif isinstance(value, list):
        made._content = [node(classes, item, made) for item in value]
    else:
        made._val = value
    return made


# ---- it works ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "omegaconf", "two parts", "by name", "prefixed"])
def test_embeddings_are_the_goldens(
    kind: str, tiny: dict[str, Tensor], clip: Path, tmp_path: Path, capsys: Any
) -> None:
    file, head = tmp_path / "71478.pth", audio_head(tiny)
    empty: OrderedDict[str, Tensor] = OrderedDict()
    models: dict[str, Any] = {
        "two parts": (head, LOSS),
        "by name": {"audio_head": head, "loss_head": LOSS},
        "prefixed": {f"module.audio_head.{n}": v for n, v in head.items()}
        | {f"module.loss_head.{n}": v for n, v in LOSS.items()},
    }
    with omegaconf() as classes:
        cfg = node(classes, CFG) if kind == "omegaconf" else CFG
        save(file, models.get(kind, (empty, head, empty, LOSS)), cfg)
    assert "omegaconf" not in sys.modules
    assert run(command(file, tmp_path / "out", clip)) == 0
    assert "stride 4 x 6" in capsys.readouterr().out
    model = load(tmp_path / "out")
    features = model.audio(tiny["fbank"][:, 0]).detach()
    assert float((features - tiny["feat_100"]).abs().max()) < 1e-5
    embeddings = model.encode_fbank(tiny["fbank"][:, 0])
    assert float((embeddings - tiny["featn_100"]).abs().max()) < 1e-5
    assert model.scale == pytest.approx(math.exp(2.5))
    audio: Any = model.front_end.settings
    norm = model.front_end.norm
    assert (audio.sample_rate, audio.crop, audio.pad) == ("native", "vip_ant", "raw_zero")
    assert [norm.mean, norm.std] == NORMS and model.audio.settings.kernel == "runtime_mean"
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["weights"] == 2 * 12 + 8 and results["audio_hash"] == model.audio_hash
    assert results["settings_from"]["num-frames"] == "cfg running.audio.max_len"
    assert results["scales"]["loss_head_va.logit_scale"] == pytest.approx(math.exp(3.0))


def test_other_lengths_are_the_references(
    tiny: dict[str, Tensor], clip: Path, tmp_path: Path
) -> None:
    run(command(save(tmp_path / "a.pth", (audio_head(tiny), LOSS)), tmp_path / "out", clip))
    longer = load(tmp_path / "out", num_frames=180).audio(tiny["fbank180"][:, 0])
    assert float((longer.detach() - tiny["feat_180"]).abs().max()) < 1e-5
    shorter = load(tmp_path / "out", num_frames=52).audio(tiny["fbank"][:2, 0, :52])
    assert float((shorter.detach() - tiny["feat_52"]).abs().max()) < 1e-5


def test_flags_stand_in_for_settings(tiny: dict[str, Tensor], clip: Path, tmp_path: Path) -> None:
    head = audio_head(tiny, "pos_stride8x8")
    kernel = "pre_encoder.conv1.weight"
    head[kernel] = head[kernel].mean(1, keepdim=True).half()
    file = save(tmp_path / "a.pth", (head, OrderedDict()), cfg=None)
    flags: dict[str, Any] = {"stride": (8, 8), "num_frames": 100, "num_mel_bins": 32}
    run(command(file, tmp_path / "out", clip, positions="bilinear", norms="ast", **flags))
    model = load(tmp_path / "out")
    assert model.audio.settings.kernel == "load_mean" and model.audio.settings.stride == (8, 8)
    assert model.front_end.norm.source == "ast" and model.scale == pytest.approx(1 / 0.07)
    features = model.audio(tiny["fbank"][:, 0]).detach()
    wanted = tiny["feat_stride8x8"]
    assert float((features - wanted).abs().max()) < 2e-3 * float(wanted.abs().max())  # half


def test_norms_of_a_checkpoint(tiny: dict[str, Tensor], clip: Path, tmp_path: Path) -> None:
    """The reference does not normalise where its list is empty."""
    for number, (norms, wanted) in enumerate((([-3.0, 2.0], (-3.0, 2.0)), ([], (0.0, 1.0)))):
        cfg = json.loads(json.dumps(CFG))
        cfg["running"]["audio"]["norms"] = norms
        file = save(tmp_path / f"{number}.pth", (audio_head(tiny), LOSS), cfg)
        run(command(file, tmp_path / f"out{number}", clip))
        norm = load(tmp_path / f"out{number}").front_end.norm
        assert (norm.mean, norm.std) == wanted and norm.source in ("checkpoint", "none")


def test_settings_follow_pointers() -> None:
    assert setting(CFG, "running.max_audio_len") == 100
    assert setting(CFG, "running.audio.missing") is None and setting(CFG, "seed.deeper") is None
    assert setting({"a": "${b}", "b": "${a}"}, "a") is None and setting({"a": "???"}, "a") is None


def test_unknown_weights_are_listed(
    tiny: dict[str, Tensor], clip: Path, tmp_path: Path, capsys: Any
) -> None:
    head = audio_head(tiny)
    head["adapter.weight"] = torch.zeros(2)
    file = save(tmp_path / "a.pth", (head, LOSS))
    with pytest.raises(ModelError, match=r"does not: adapter.weight; --ignore-unknown"):
        run(command(file, tmp_path / "out", clip))
    run(command(file, tmp_path / "out", clip, ignore_unknown=True))
    assert "left out 1 weights that the encoder lacks: adapter.weight" in capsys.readouterr().err
    model = load(tmp_path / "out")
    features = model.audio(tiny["fbank"][:, 0]).detach()
    assert float((features - tiny["feat_100"]).abs().max()) < 1e-5


# ---- nothing is executed ----------------------------------------------------------------------


class Evil:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class EvilState:
    """A harmless-looking object of settings, whose state calls a function."""

    def __reduce__(self) -> Any:
        return (OrderedDict, (), {"x": Evil(os.mkdir, "made-by-state")})


@pytest.mark.parametrize("where", ["cfg", "model", "deep", "state", "eval", "pickle only"])
def test_a_malicious_file_is_refused_and_not_run(where: str, clip: Path, tmp_path: Path) -> None:
    marker, file = tmp_path / "marker", tmp_path / "evil.pth"
    evil = Evil(os.system, f"touch {marker}")
    content: dict[str, Any] = {
        "cfg": {"cfg": evil, "model": ()},
        "model": {"cfg": {}, "model": evil},
        "deep": {"cfg": {"a": [{"b": evil}]}, "model": ({}, {})},
        "state": {"cfg": EvilState(), "model": ({}, {})},
        "eval": {"cfg": Evil(eval, f"open({str(marker)!r}, 'w')"), "model": ({}, {})},
        "pickle only": {"cfg": evil},
    }[where]
    if where == "pickle only":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file)
    words = "no file of torch.save" if where == "pickle only" else "nothing was imported or run"
    with pytest.raises(ModelError, match=words) as caught:
        run(command(file, tmp_path / "out", clip))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()
    assert not marker.exists() and not Path("made-by-state").exists()
    if where == "cfg":  # the file does do harm where it is trusted
        with zipfile.ZipFile(file) as archive:
            pickle.loads(archive.read("evil/data.pkl"))
        assert marker.exists()


def test_classes_of_settings_are_not_imported(tmp_path: Path) -> None:
    """A class that claims to be omegaconf's, with a constructor, an import and a method to call."""
    with omegaconf() as classes:
        hooked = classes["AnyNode"]
        hooked.__setstate__ = lambda self, state: Path("made").mkdir()  # type: ignore[attr-defined]
        value = hooked()
        value._val = 7
        torch.save({"cfg": {"x": value}}, tmp_path / "a.pth")
        found = read_torch_file(tmp_path / "a.pth")  # its class is importable here, and is not used
    assert found == {"cfg": {"x": 7}} and not Path("made").exists()


def test_tensors_come_as_they_were(tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    saved = {
        "view": base[1:3, ::2],
        "turned": base.T,
        "none": torch.empty(0, 3),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "parameter": torch.nn.Parameter(base),
        **{str(kind): torch.ones(2).to(kind) for kind in (torch.bfloat16, torch.int64, torch.bool)},
    }
    torch.save(saved, tmp_path / "a.pt")
    found = read_torch_file(tmp_path / "a.pt")
    assert found.keys() == saved.keys()
    for name, value in saved.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name


# ---- what is wrong is said --------------------------------------------------------------------


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    """One byte of a tensor; only the checksum can tell."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = max(archive.infolist(), key=lambda info: info.file_size)
    data[entry.header_offset + 400] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(("damage", "words"), [
    (cut, "cut short, damaged"),
    (flip, "Bad CRC-32"),
    (lambda path: path.write_bytes(b""), "no file of torch.save"),
    (lambda path: path.write_text("version https://git-lfs"), "no file of torch.save"),
    (lambda path: path.unlink(), "No such file"),
    (lambda path: zipfile.ZipFile(path, "w").close(), "has no data.pkl"),
])  # fmt: skip
def test_damaged_files(
    tiny: dict[str, Tensor], clip: Path, tmp_path: Path, damage: Any, words: str
) -> None:
    file = save(tmp_path / "a.pth", (audio_head(tiny), LOSS))
    damage(file)
    with pytest.raises(ModelError, match=words) as caught:
        run(command(file, tmp_path / "out", clip))
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_any_damage_to_the_pickle_is_one_line(tmp_path: Path) -> None:
    """A few hundred changed bytes: data or a ModelError comes out, nothing else."""
    torch.save({"cfg": CFG, "model": ({"a": torch.ones(2)}, LOSS)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    rng, refused = np.random.default_rng(1), 0
    for _ in range(300):
        data = bytearray(entries["a/data.pkl"])
        data[rng.integers(len(data))] = rng.integers(256)
        with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
            for name, content in (entries | {"a/data.pkl": bytes(data)}).items():
                archive.writestr(name, content)
        try:
            read_checkpoint(tmp_path / "b.pth")
        except ModelError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 30


def without(tiny: dict[str, Tensor], *names: str, **changes: Tensor) -> Any:
    head = {**audio_head(tiny), **{name.replace("__", "."): v for name, v in changes.items()}}
    return {name: value for name, value in head.items() if name not in names}, LOSS


def test_wrong_checkpoints(tiny: dict[str, Tensor], clip: Path, tmp_path: Path) -> None:
    nan = torch.full((64,), math.nan)
    other = tiny_clip_folder(tmp_path / "other", width=32)
    cases: list[tuple[Any, Any, Path, str]] = [
        (without(tiny, "post_encoder.ln.bias"), CFG, clip, "lacks weights .*: ln_post.bias"),
        (without(tiny, misc__class_embedding=nan), CFG, clip, "NaN or infinite values in misc.cla"),
        (
            without(tiny, misc__class_embedding=nan[:5]),
            CFG,
            clip,
            r"class_embedding is \(5,\), not",
        ),
        (without(tiny), None, clip, r"positional_embedding is \(121, 64\), .* give --stride"),
        (without(tiny), CFG, other, r"is \(64\b.* not \(32\b.*--clip.model"),
        (
            without(tiny),
            {"running": {"audio": {"window_type": "povey"}}},
            clip,
            "window_type povey",
        ),
        (without(tiny), {"running": {"audio": {"norms": [0.0, 0.0]}}}, clip, "make no sense"),
        (without(tiny), {"running": {"audio": {"max_len": "ten"}}}, clip, "make no sense"),
        (({}, {}, {}), CFG, clip, "neither 2 nor 4 state dicts"),
        (({"a": 1}, {}), CFG, clip, "is no state dict"),
        (({}, {}), CFG, clip, "lacks weights of the audio encoder: .* and 28 more"),
        ((audio_head(tiny), {"logit_scale": torch.tensor(2000.0)}), CFG, clip, "not finite"),
    ]
    for number, (model, cfg, folder, words) in enumerate(cases):
        file = save(tmp_path / f"{number}.pth", model, cfg)
        with pytest.raises(UserError, match=words) as caught:
            run(command(file, tmp_path / "out", folder))
        assert "\n" not in str(caught.value) and not (tmp_path / "out").exists(), words
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ModelError, match="holds no `model`"):
        read_checkpoint(tmp_path / "list.pth")


def test_a_used_folder_and_another_clip_are_refused(
    tiny: dict[str, Tensor], clip: Path, tmp_path: Path
) -> None:
    file = save(tmp_path / "a.pth", (audio_head(tiny), LOSS))
    run(command(file, tmp_path / "out", clip))
    before = (tmp_path / "out" / "model" / "model.json").read_bytes()
    with pytest.raises(RunError, match="is in use"):
        run(command(file, tmp_path / "out", clip))
    assert (tmp_path / "out" / "model" / "model.json").read_bytes() == before
    plain = tiny_clip_folder(tmp_path / "gelu", quick_gelu=False)
    with pytest.raises(ModelError, match="QuickGELU"):
        run(command(file, tmp_path / "two", plain))
