"""Made-up tiny data sets in their official layouts; every file is the same each time.

Clips and captions are those of the demo's world; names, columns and folders are those of AudioSet,
AudioCaps, Clotho, ESC-50, UrbanSound8K, TUT Acoustic Scenes 2017, VGGSound, FSD50K, LAION's tars
and MSCOCO. No two data sets share a sound, but for AudioSet and AudioCaps.
"""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import soundfile

from pivot.world.captions import heard, pool
from pivot.world.clips import encode, scene_of
from pivot.world.draw import frames, sound
from pivot.world.scenes import generator
from pivot.world.synthesis import RATE
from pivot.world.things import LABELS

SEED = 1
CLASSES, UNHEARD = LABELS[:3], ("child speech, kid speaking",)  # AudioSet's names have commas
# AudioSet's made-up clips by number; AudioCaps's training and test clips are among them
UNBALANCED, BALANCED, EVALUATION = range(16), range(24, 32), range(32, 40)
CAPTIONED, TESTED, LISTED = range(16), range(32, 40), range(32, 38)
# Headers as published
AUDIOSET = "# YTID, start_seconds, end_seconds, positive_labels"
AUDIOCAPS = ("audiocap_id", "youtube_id", "start_time", "caption")
CLOTHO = ("file_name", *(f"caption_{k}" for k in range(1, 6)))
ESC50 = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
SCENES = ("beach", "cafe/restaurant", "tram")
US8K = ("slice_file_name", "fsID", "start", "end", "salience", "fold", "classID", "class")


def audioset(folder: Path) -> None:
    """Three lists of segments, the ontology, and a video for every segment."""
    ids = {name: f"/m/0made{n:02d}" for n, name in enumerate((*CLASSES, *UNHEARD))}
    for name, clips in (
        ("unbalanced_train", UNBALANCED),
        ("balanced_train", BALANCED),
        ("eval", EVALUATION),
    ):
        lines = ["# Segments csv created for a dry run", "# num_ytids=0", AUDIOSET]
        for clip in clips:
            labels = ",".join(ids[name] for name in labels_of(clip))
            lines.append(f'{youtube_id(clip)}, 0.000, 2.000, "{labels}"')
        _write(folder / f"{name}_segments.csv", "\n".join(lines) + "\n")
        for clip in clips:
            scene = scene_of(SEED, "train", clip)
            film = frames(scene, generator(SEED, "train", clip, "frames"))
            (folder / "videos").mkdir(exist_ok=True)
            (folder / "videos" / f"{youtube_id(clip)}.mp4").write_bytes(encode(film, wave_of(clip)))
    entries = [
        {"id": mid, "name": name.capitalize(), "description": "", "child_ids": []}
        for name, mid in ids.items()
    ]
    _write(folder / "ontology.json", json.dumps(entries))


def audiocaps(folder: Path) -> None:
    """train.csv with a caption a clip, test.csv with five, and a list of test clips."""
    for split, clips, many in (("train", CAPTIONED, 1), ("test", TESTED, 5)):
        rows = [
            (5 * clip + k, youtube_id(clip), 0, text)
            for clip in clips
            for k, text in enumerate(captions_of(clip, many))
        ]
        _table(
            folder / f"{split}.csv", ("audiocap_id", "youtube_id", "start_time", "caption"), rows
        )
    _write(folder / "test_860.txt", "".join(f"{youtube_id(clip)}\n" for clip in LISTED))


def clotho(folder: Path) -> None:
    """Development and evaluation sounds with five captions each; one is longer than 10 seconds."""
    for split, first in (("development", 300), ("evaluation", 320)):
        rows = []
        for clip in range(first, first + 6):
            name = f"Made up {clip}.wav"
            _sound(folder / split / name, wave_of(clip), repeat=6 if clip == first else 1)
            rows.append((name, *captions_of(clip, 5)))
        _table(folder / f"clotho_captions_{split}.csv", CLOTHO, rows)


def esc50(folder: Path) -> None:
    """Three classes in five folds."""
    rows = []
    for fold in range(1, 6):
        for target, category in enumerate(CLASSES):
            source = 1000 * fold + target
            name = f"{fold}-{source}-A-{target}.wav"
            _sound(folder / "audio" / name, wave_of(3 * fold + target))
            rows.append((name, fold, target, category.replace(" ", "_"), False, source, "A"))
    _table(folder / "meta" / "esc50.csv", ESC50, rows)


def us8k(folder: Path) -> None:
    """Two classes in ten folds, short sounds of several rates."""
    rows = []
    for fold in range(1, 11):
        for number, name in enumerate(CLASSES[:2]):
            source = 100 * fold + number
            file = f"{source}-{number}-0-0.wav"
            rate = (8000, 16000, 44100)[fold % 3]
            _sound(folder / "audio" / f"fold{fold}" / file, wave_of(source)[:RATE], rate)
            rows.append((file, source, 0.0, 1.0, 1, fold, number, name.replace(" ", "_")))
    _table(folder / "metadata" / "UrbanSound8K.csv", US8K, rows)


def pools(folder: Path) -> None:
    """Captions to mine: AudioCaps and Clotho for training, and MSCOCO's annotations."""
    rows = [(n, youtube_id(n), 0, text) for n, text in enumerate(pool(SEED, "audio", 20))]
    _table(folder / "ac" / "audiocaps_train.csv", AUDIOCAPS, rows)
    clips = [(f"Other {clip}.wav", *captions_of(100 + clip, 5)) for clip in range(4)]
    _table(folder / "ac" / "clotho_captions_development.csv", CLOTHO, clips)
    texts = pool(SEED, "vision", 60)
    for split, part in (("train2014", texts[:40]), ("val2014", texts[40:])):
        first = 0 if split == "train2014" else 40
        notes = [
            {"image_id": first + n, "id": first + n, "caption": text} for n, text in enumerate(part)
        ]
        images = [{"id": first + n, "file_name": f"{first + n:012d}.jpg"} for n in range(len(part))]
        about = {"info": {}, "licenses": [], "images": images, "annotations": notes}
        _write(folder / "vc" / f"captions_{split}.json", json.dumps(about))


def tut17(folder: Path) -> None:
    """Three scenes of ten seconds each in the development and the evaluation set."""
    for split, first in (("development", 500), ("evaluation", 520)):
        place = folder / f"TUT-acoustic-scenes-2017-{split}"
        lines = []
        for clip in range(first, first + 6):
            name = f"b{clip}_0_10" if split == "development" else str(clip)
            _sound(place / "audio" / f"{name}.wav", wave_of(clip), repeat=5)
            cells = [f"audio/{name}.wav", SCENES[clip % 3]]
            lines.append("\t".join([*cells, f"b{clip}"] if split == "development" else cells))
        _write(place / "meta.txt", "\n".join(lines) + "\n")


def clap(folder: Path) -> None:
    """A list of sounds of FSD50K's kind with two captions each, and the ids of some of them."""
    _list(folder, range(400, 416), 2)
    _write(folder / "tenth.txt", "".join(f"{clip}\n" for clip in range(400, 404)))


def joint(folder: Path) -> None:
    """A list of sounds of WavCaps's kind with a caption each."""
    _list(folder, range(430, 442), 1)


def _list(folder: Path, clips: range, captions: int) -> None:
    rows = []
    for clip in clips:
        _sound(folder / "sounds" / f"{clip}.wav", wave_of(clip), 44100)
        row = {
            "path": f"sounds/{clip}.wav",
            "id": str(clip),
            "captions": captions_of(clip, captions),
        }
        rows.append(json.dumps(row) + "\n")
    _write(folder / "train.jsonl", "".join(rows))


def laion(folder: Path) -> None:
    """Tars of sounds with captions, tags and written captions, in folders of links to data sets."""
    for root, names in (
        ("ac_cl", ("audiocaps", "clotho")),
        ("la", ("audiocaps", "clotho", "freesound")),
        ("la_audioset", ("audiocaps", "clotho", "freesound", "audioset")),
    ):
        for first, name in zip((600, 610, 620, 630), names, strict=False):
            _tar(folder / root / name / "train", range(first, first + 6), name == "audioset")


def _tar(folder: Path, clips: range, written: bool) -> None:
    folder.mkdir(parents=True)
    with tarfile.open(folder / "0.tar", "w") as tar:
        for clip in clips:
            about: dict[str, object] = {"text": captions_of(clip, 2), "tag": list(labels_of(clip))}
            if written:
                about = {
                    "text": [f"the sounds of {' and '.join(labels_of(clip))}"],
                    "tag": list(labels_of(clip)),
                    "text_augment_t5": captions_of(clip, 1)[0],
                    "text_augment_all": captions_of(clip, 3),
                }
            sound_file = io.BytesIO()
            soundfile.write(sound_file, wave_of(clip), RATE, format="FLAC")
            for suffix, data in (
                ("flac", sound_file.getvalue()),
                ("json", json.dumps(about).encode()),
            ):
                member = tarfile.TarInfo(f"{clip}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    _write(folder / "sizes.json", json.dumps({"0.tar": len(clips)}))


def vggsound(folder: Path) -> None:
    """The list with train and test clips, and the sounds it names."""
    rows = []
    for clip in range(700, 712):
        split = "test" if clip >= 709 else "train"
        rows.append((youtube_id(clip), 30, CLASSES[clip % 3], split))
        _sound(folder / "audio" / f"{youtube_id(clip)}_000030.wav", wave_of(clip))
    lines = [f'{video},{start},"{label}",{split}' for video, start, label, split in rows]
    _write(folder / "vggsound.csv", "\n".join(lines) + "\n")


def fsd50k(folder: Path) -> None:
    """Development clips, some of them for validation, and evaluation clips; several labels each."""
    names = [name.replace(" ", "_").capitalize() for name in CLASSES]
    for split, clips in (("dev", range(720, 732)), ("eval", range(740, 746))):
        rows = []
        for clip in clips:
            own = sorted({names[clip % 3], names[(clip + clip // 3) % 3]})
            mids = ",".join(f"/m/0made{names.index(name):02d}" for name in own)
            part = ("val" if clip % 4 == 3 else "train",) if split == "dev" else ()
            rows.append((clip, ",".join(own), mids, *part))
            _sound(folder / f"FSD50K.{split}_audio" / f"{clip}.wav", wave_of(clip), 44100)
        header = ("fname", "labels", "mids", *(("split",) if split == "dev" else ()))
        _table(folder / "FSD50K.ground_truth" / f"{split}.csv", header, rows)
    lines = [f"{n},{name},/m/0made{n:02d}" for n, name in enumerate(names)]
    _write(folder / "FSD50K.ground_truth" / "vocabulary.csv", "\n".join(lines) + "\n")


def youtube_id(clip: int) -> str:
    """Eleven characters, as YouTube's ids have."""
    return f"madeup_{clip:04d}"


def labels_of(clip: int) -> tuple[str, ...]:
    """One or two of the classes."""
    first = CLASSES[clip % len(CLASSES)]
    return (first, CLASSES[(clip + 1) % len(CLASSES)]) if clip % 4 == 0 else (first,)


def captions_of(clip: int, count: int) -> list[str]:
    """What one hears in a clip, in `count` sentences."""
    rng = generator(SEED, "train", clip, "captions")
    return [heard(rng, scene_of(SEED, "train", clip)) for _ in range(count)]


def wave_of(clip: int) -> np.ndarray:
    """The sound of a clip: int16 (samples,) at RATE, two seconds."""
    return sound(scene_of(SEED, "train", clip), generator(SEED, "train", clip, "sound"))


def _sound(path: Path, wave: np.ndarray, rate: int = RATE, repeat: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.tile(wave, repeat), rate)


def _table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
