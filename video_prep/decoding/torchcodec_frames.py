"""Pictures through torchcodec: a choice, each compared with the exact frame and flagged.

What it gets wrong (torchcodec 0.17, exact mode; measured on barcoded clips): in transport streams
it returns frames that are 9 to 49 too late, in MPEG-2 ones 7 to 14, and reports the true time of
the wrong frame; a JPEG named .mp4 is a video to it; of a file whose pictures are damaged in part
it gives garbage without a mark or nothing at all. It holds 946 MB of memory, because it imports
torch. The exact frames are decoded too and compared: never silently wrong, but slower than the
default alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from video_prep.decoding.packets import PacketIndex
from video_prep.decoding.picture import Picture, PictureMaker
from video_prep.errors import ClipError, UserError

_ROUNDING = 1e-6  # seconds; its times are floats


def torchcodec_pictures(
    path: Path, index: PacketIndex, chosen: list[int], maker: PictureMaker, exact: list[Picture]
) -> list[Picture]:
    """Pictures of the frames on screen at the time stamps `chosen`, as torchcodec finds them.

    `exact`: the pictures of the packet index, which tell the size. Raises ClipError.
    """
    decoder = _video_decoder()
    try:
        video = decoder(str(path), num_ffmpeg_threads=1, seek_mode="exact")
        first = video.metadata.begin_stream_seconds
        last = video.metadata.end_stream_seconds - _ROUNDING
        moments = [float(pts * index.time_base) + _ROUNDING for pts in chosen]
        batch = video.get_frames_played_at([min(max(t, first), last) for t in moments]).data
        pictures = batch.permute(0, 2, 3, 1).contiguous().numpy()
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        text = (str(error).strip().splitlines() or ["no frames"])[0]
        raise ClipError("frame_undecodable", f"{path}: torchcodec fails: {text}") from None
    return [maker.upright(rgb, same) for rgb, same in zip(pictures, exact, strict=True)]


def _video_decoder() -> Any:
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, OSError, RuntimeError):  # RuntimeError: FFmpeg's libraries are not there
        raise UserError(
            "--decoder torchcodec cannot be loaded: pip install 'pivot-audio[torchcodec]' and "
            "FFmpeg 4 to 8 with its shared libraries, or use --decoder pyav"
        ) from None
    return VideoDecoder
