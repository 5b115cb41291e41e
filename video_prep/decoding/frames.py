"""Decodes exactly the wanted frames: only their groups of pictures, skipping what none needs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

import av

from video_prep.decoding.packets import SKIPPABLE, PacketIndex, PacketSource
from video_prep.decoding.picture import Picture, PictureMaker
from video_prep.errors import ClipError


def exact_pictures(
    path: Path, video: Any, index: PacketIndex, chosen: list[int], maker: PictureMaker
) -> tuple[list[Picture], list[str]]:
    """Pictures with the time stamps `chosen`, and the flag `corrupt_gop` where data was damaged.

    Raises ClipError where one of them cannot be decoded; none is replaced by another.
    """
    wanted = set(chosen)
    with PacketSource(path, video.index, index) as source:
        decode = _in_order if index.guessed else _by_stamp
        found, corrupt = decode(video.codec_context, source, wanted, maker)
    missing = sorted(wanted - set(found))
    if missing:
        seconds = ", ".join(f"{float(index.seconds(pts)):.3f}" for pts in missing)
        raise ClipError("frame_undecodable", f"{path}: no picture can be decoded at {seconds} s")
    return [found[pts] for pts in chosen], ["corrupt_gop"] if corrupt else []


def _by_stamp(
    codec: Any, source: PacketSource, wanted: set[int], maker: PictureMaker
) -> tuple[dict[int, Picture], bool]:
    """Decode each wanted frame from the keyframe before it on."""
    found: dict[int, Picture] = {}
    corrupt = False
    index = source.index
    for first, last, stamps in index.runs(wanted):
        skips = index.codec in SKIPPABLE
        got, bad = _decode_run(codec, source.between(first, last), stamps, skips, maker)
        for begin in index.earlier(first):  # a damaged reference, or a keyframe that was none
            if len(got) < len(stamps):
                got, bad = _decode_run(codec, source.between(begin, last), stamps, False, maker)
        found |= got
        corrupt |= bad
    return found, corrupt


def _decode_run(
    codec: Any, packets: Iterable[Any], wanted: set[int], skips: bool, maker: PictureMaker
) -> tuple[dict[int, Picture], bool]:
    """Decode consecutive packets; True where one of them, so perhaps its followers, is damaged."""
    codec.flush_buffers()
    found: dict[int, Picture] = {}
    corrupt = False
    for packet in chain(packets, [None]):
        needed = packet is None or packet.pts in wanted or not skips
        codec.skip_frame = "DEFAULT" if needed else "NONREF"
        frames, bad = _decode_packet(codec, packet)
        corrupt |= bad
        for frame in frames:
            corrupt |= frame.is_corrupt
            if frame.pts in wanted:
                found[frame.pts] = maker.make(frame)
    return found, corrupt


def _in_order(
    codec: Any, source: PacketSource, wanted: set[int], maker: PictureMaker
) -> tuple[dict[int, Picture], bool]:
    """Decode everything and count: without display times only the order of frames is known."""
    codec.flush_buffers()
    codec.skip_frame = "DEFAULT"
    index = source.index
    stamps = iter(index.order())
    found: dict[int, Picture] = {}
    corrupt = False
    for packet in chain(source.between(index.first, index.count - 1), [None]):
        frames, bad = _decode_packet(codec, packet)
        corrupt |= bad
        for frame in frames:
            stamp = next(stamps, None)
            corrupt |= frame.is_corrupt
            if stamp in wanted and stamp is not None:
                found[stamp] = maker.make(frame)
        if len(found) == len(wanted):
            break
    return found, corrupt


def _decode_packet(codec: Any, packet: Any) -> tuple[list[Any], bool]:
    """Frames that come out after this packet (None drains); True where it is damaged.

    Damaged: it cannot be decoded, or the container says so (a transport stream that lost a part).
    """
    try:
        return codec.decode(packet), packet is not None and packet.is_corrupt
    except av.FFmpegError:
        return [], True
