"""The made-up world: same seed, same bytes; splits apart; captions CLIP can read; CLIP can name."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from pivot.encoders.clip import load_clip
from pivot.settings import ClipSettings
from pivot.world.captions import heard, pool, seen, web, words
from pivot.world.clips import CAPTIONS, encode, scene_of, write_world
from pivot.world.draw import FPS, SIDE, frames, picture, sound
from pivot.world.exam import named_right, sheet
from pivot.world.looks import LOOKS, sprite
from pivot.world.scenes import SECONDS, draw_scene, generator
from pivot.world.sounds import AIRS, VOICES, sound_of
from pivot.world.synthesis import RATE
from pivot.world.things import COLOURS, LABELS, PLACES, SILENT, SOUNDING, THINGS, held_out
from pivot.world.tokenizer import CONTEXT, UNKNOWN, build
from pivot.world.train_writer import TrainWriter
from pivot.world.train_writer import run as train_writer
from pivot.writing.find_language import load_language
from pivot.writing.language import Language
from video_prep.errors import UserError

CLIP_FOLDER = Path(__file__).resolve().parent.parent / "pivot" / "world" / "clip"
SPLITS = ("train", "test_single", "test_mixed")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 5, train=6, test_single=3, test_mixed=3, pool_share=0.02, workers=1)
    return folder


@pytest.fixture(scope="module")
def clip():
    return load_clip(ClipSettings(model="tiny-world"))


def rows(world: Path, split: str) -> list[dict]:
    return [json.loads(line) for line in (world / split / "clips.jsonl").read_text().splitlines()]


# ---- things ---------------------------------------------------------------------------------


def test_the_world_is_complete() -> None:
    assert len(SOUNDING) >= 20 and len(SILENT) == 10 and len(LABELS) == len(set(LABELS))
    assert set(VOICES) == set(LABELS) and set(AIRS) == {place.name for place in PLACES}
    looks = set(THINGS) | {thing.shared for thing in SOUNDING if thing.shared}
    assert looks == set(LOOKS)
    sharing = [thing.shared for thing in SOUNDING if thing.shared]
    assert all(sharing.count(look) == 2 for look in sharing)


def test_every_look_is_another_drawing() -> None:
    drawn = {sprite(look, COLOURS["red"], 20).tobytes() for look in LOOKS}
    assert len(drawn) == len(LOOKS)


@pytest.mark.parametrize("name", LABELS)
def test_every_sound_is_finite_and_as_loud_as_asked(name: str) -> None:
    for pitch, pace, seconds in ((0.5, 0.5, 2.0), (2.0, 2.0, 0.75)):
        rng = np.random.default_rng(1)
        wave = sound_of(name, rng, pitch=pitch, pace=pace, level=0.1, seconds=seconds)
        assert len(wave) == round(seconds * RATE)
        assert np.isfinite(wave).all()
        assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.1, rel=0.01)


# ---- determinism and splits -----------------------------------------------------------------


def draw(seed: int, split: str, index: int) -> tuple[bytes, bytes]:
    scene = scene_of(seed, split, index)
    film = frames(scene, generator(seed, split, index, "frames"))
    return film.tobytes(), sound(scene, generator(seed, split, index, "sound")).tobytes()


def test_same_seed_same_bytes_and_another_seed_others() -> None:
    first, again = draw(3, "train", 7), draw(3, "train", 7)
    assert first == again
    others = [draw(4, "train", 7), draw(3, "train", 8), draw(3, "test_mixed", 7)]
    assert all(first[0] != film and first[1] != wave for film, wave in others)


def test_files_do_not_depend_on_the_number_of_processes(world: Path, tmp_path: Path) -> None:
    write_world(tmp_path, 5, train=6, test_single=3, test_mixed=3, pool_share=0.02, workers=2)
    for path in world.rglob("*"):
        if path.is_file():
            assert (tmp_path / path.relative_to(world)).read_bytes() == path.read_bytes()


def test_test_clips_hold_only_combinations_never_seen_in_training() -> None:
    def pairs(stream: str) -> set[tuple[str, str]]:
        scenes = [draw_scene(generator(1, stream, i), stream) for i in range(400)]
        return {(part.colour, scene.place.name) for scene in scenes for part in scene.parts}

    training = pairs("train") | pairs("pool") | pairs("pictures")
    held = pairs("test_single") | pairs("test_mixed")
    assert not training & held
    assert len(training) == 48 and len(held) == 12
    assert {colour for colour, _ in held} == set(COLOURS)
    assert sum(held_out(colour, place.name) for colour in COLOURS for place in PLACES) == 12


def test_pools_and_clips_come_from_different_draws() -> None:
    scenes = {repr(scene_of(1, split, i)) for split in SPLITS for i in range(300)}
    scenes |= {
        repr(draw_scene(generator(1, f"pool/{m}", i), "pool")) for m in "av" for i in range(300)
    }
    assert len(scenes) == 1500


def test_single_clips_have_one_sound_and_mixed_ones_more() -> None:
    assert all(len(scene_of(1, "test_single", i).heard) == 1 for i in range(100))
    assert {len(scene_of(1, "test_mixed", i).heard) for i in range(100)} == {1, 2}


def test_things_shake_only_while_they_sound() -> None:
    for i in range(20):
        scene = scene_of(1, "test_single", i)
        film = frames(scene, generator(1, "test_single", i, "frames")).astype(int)
        part = scene.heard[0]
        last = round((part.onset + part.seconds) * FPS) + 1
        still = film[last:]
        assert (np.abs(np.diff(film[:last], axis=0)).sum() > 0) and not np.diff(still, axis=0).any()


# ---- captions -------------------------------------------------------------------------------


def test_every_caption_is_in_the_vocabulary_and_the_context() -> None:
    tokenizer = build()
    texts = pool(2, "audio", 300) + pool(2, "vision", 300)
    for i in range(300):
        rng = generator(2, "pictures", i)
        scene = draw_scene(rng, "pictures")
        texts += [web(rng, scene), seen(rng, scene), heard(rng, scene)]
    for encoding in tokenizer.encode_batch(texts):
        assert UNKNOWN not in encoding.tokens
        assert len(encoding.ids) <= CONTEXT
    assert set(words()) >= {word for name in LABELS for word in name.split()}


def test_captions_tell_the_truth() -> None:
    for i in range(100):
        rng = generator(6, "train", i)
        scene = draw_scene(rng, "train")
        told = heard(rng, scene).replace(",", "").split()
        assert {name for name in THINGS if name in told} == {p.thing.name for p in scene.heard}
        shown = seen(rng, scene).split()
        assert {name for name in THINGS if name in shown} <= {p.thing.name for p in scene.parts}
        assert scene.air or not {"field", "sea", "street"} & set(told)


def test_words_of_sound_are_not_tied_to_pictures() -> None:
    """In CLIP's captions 'low' and 'high' are as frequent for big things as for small ones."""
    count = {(word, size): 0 for word in ("low", "high") for size in (0, 2)}
    for i in range(6000):
        rng = generator(8, "pictures", i)
        scene = draw_scene(rng, "pictures")
        sizes = {part.size for part in scene.parts if part.thing.verb}
        for word in ("low", "high"):
            if len(sizes) == 1 and (size := sizes.pop() if sizes else 1) != 1:
                count[word, size] += word in web(rng, scene).split()
                sizes = {size}
    low = count["low", 0] / (count["low", 0] + count["high", 0])
    small = count["low", 2] / (count["low", 2] + count["high", 2])
    assert abs(low - 0.5) < 0.12 and abs(small - 0.5) < 0.12


def test_the_writer_learns_the_grammar(tmp_path: Path) -> None:
    """A short training: of new captions it expects the words in their order; same seed, same."""
    file = tmp_path / "seen.txt"
    file.write_text("\n".join(pool(2, "vision", 400)) + "\n")
    for name in ("a", "b"):
        short = TrainWriter(
            captions=str(file), out=str(tmp_path / name), steps=60, batch_size=16, window=32,
            lr=5e-3,
        )  # fmt: skip
        assert train_writer(short) == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("a", "b")]
    assert weights[0] == weights[1]
    language = load_language(str(tmp_path / "a"))
    assert language.facts["architecture"] == "GPTJForCausalLM"
    new = [seen(generator(9, "new", i), draw_scene(generator(9, "x", i), "x")) for i in range(50)]
    mixed = [" ".join(np.random.default_rng(1).permutation(text.split())) for text in new]
    assert loss_of(language, new) < 0.7 * loss_of(language, mixed)


def loss_of(language: Language, texts: list[str]) -> float:
    """Mean loss of a word, each text by itself."""
    rows = [torch.tensor([language.tokens(f"\n{text}\n")]) for text in texts]
    with torch.no_grad():
        return float(np.mean([language.model(ids, labels=ids).loss.item() for ids in rows]))


# ---- files ----------------------------------------------------------------------------------


def test_lists_name_real_videos_with_sound(world: Path) -> None:
    for split in SPLITS:
        listed = rows(world, split)
        assert len(listed) == len(list((world / split).glob("*.mp4")))
        for row in listed:
            assert set(row) == {"path", "id", "labels", "captions"}
            assert len(row["captions"]) == CAPTIONS[split] and set(row["labels"]) <= set(LABELS)
            with av.open(str(world / split / row["path"])) as container:
                assert container.streams.video[0].codec_context.name == "h264"
                assert container.streams.audio[0].codec_context.name == "aac"
                assert len(list(container.decode(video=0))) == round(SECONDS * FPS)
    assert (world / "labels.txt").read_text().split() == list(LABELS)


def test_an_mp4_keeps_picture_and_sound() -> None:
    scene = scene_of(1, "train", 3)
    film = frames(scene, generator(1, "train", 3, "frames"))
    wave = sound(scene, generator(1, "train", 3, "sound"))
    data = encode(film, wave)
    import io

    with av.open(io.BytesIO(data)) as container:
        first = next(container.decode(video=0)).to_ndarray(format="rgb24")
    with av.open(io.BytesIO(data)) as container:
        back = np.concatenate([f.to_ndarray()[0] for f in container.decode(audio=0)])
    assert np.abs(first.astype(int) - film[0]).mean() < 4
    assert np.corrcoef(back[: len(wave)], wave)[0, 1] > 0.95


def test_pools_are_lists_without_repeats(world: Path) -> None:
    for manner in ("audio", "vision"):
        lines = (world / f"captions_{manner}.txt").read_text().splitlines()
        assert len(lines) == len(set(lines)) > 10 and all(lines)


def test_a_world_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 1 train clip, not 0"):
        write_world(tmp_path, 1, train=0, test_single=1, test_mixed=1)
    assert not list(tmp_path.iterdir())


# ---- the shipped CLIP -----------------------------------------------------------------------


def test_the_shipped_clip_is_small() -> None:
    assert sum(path.stat().st_size for path in CLIP_FOLDER.iterdir()) <= 4_000_000


def test_the_shipped_clip_reads_every_word(clip) -> None:
    assert clip.context_length == CONTEXT and clip.dim == 64
    ids = clip.tokenize(words())
    unknown = clip.tokenize(["zebra"])[0, 1]
    assert not (ids == unknown).any()
    assert (ids[:, 0] == ids[0, 0]).all()


def test_the_shipped_clip_names_single_things(clip) -> None:
    pictures, names = sheet(4242, 400)
    assert pictures[0].size == (SIDE, SIDE)
    assert named_right(clip, pictures, names) >= 0.85


def test_a_picture_is_the_scene_without_motion() -> None:
    scene = scene_of(1, "train", 0)
    still = picture(scene)
    film = frames(scene, generator(1, "train", 0, "frames")).astype(int)
    assert still.shape == film.shape[1:] and still.dtype == np.uint8
    assert np.abs(film - still).mean() < 20
