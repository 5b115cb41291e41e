"""A decoded frame to a JPEG: short side scaled and colours set in YUV, rotation applied."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import simplejpeg
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from video_prep.errors import ClipError

_BLACK = 24.0  # mean luma (full range 0-255) below which a picture is called black
_STILL = 1.0  # mean difference of luma below which two pictures are called the same
_OTHER = 2.0  # mean difference of luma above which two pictures are different frames


def output_size(width: int, height: int, aspect: Fraction, short_side: int) -> tuple[int, int]:
    """Width and height that are written: square pixels, short side at most `short_side` (0: any).

    Pictures are never enlarged; a scaled side is made even.
    """
    wide, high = (width * aspect, Fraction(height)) if aspect > 0 else (Fraction(width), height)
    scale = min(Fraction(1), Fraction(short_side) / min(wide, high)) if short_side else Fraction(1)
    if scale == 1 and wide == width:
        return width, height
    return tuple(max(2, round(side * scale / 2) * 2) for side in (wide, high))  # type: ignore[return-value]


class Picture:
    """One picture as full-range YUV 4:2:0 planes (uint8), upright."""

    def __init__(self, planes: list[np.ndarray]) -> None:
        self.planes = planes

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.planes[0].shape
        return width, height

    def jpeg(self, quality: int) -> bytes:
        """JPEG bytes; the planes go in as they are, without a round trip through RGB."""
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*self.planes, quality=quality))

    def differs(self, other: Picture) -> bool:
        """True where the two cannot be the same frame decoded twice."""
        if self.size != other.size:
            return True
        ours, theirs = (picture.planes[0].astype(np.int16) for picture in (self, other))
        return bool(np.abs(ours - theirs).mean() > _OTHER)

    def luma(self) -> np.ndarray:
        """A coarse grid of the luma, for the flags black and still."""
        plane = self.planes[0]
        return plane[:: max(1, len(plane) // 32), :: max(1, plane.shape[1] // 32)].astype(np.int16)


class PictureMaker:
    """Turns decoded frames of one clip into pictures; keeps swscale's tables between them."""

    def __init__(self, aspect: Fraction | None, short_side: int) -> None:
        self._aspect = Fraction(aspect or 1)
        self._short_side = short_side
        self._reformatter = VideoReformatter()

    def make(self, frame: Any) -> Picture:
        """Scale, convert to full-range BT.601 (what JPEG means) and turn upright."""
        width, height = output_size(frame.width, frame.height, self._aspect, self._short_side)
        shrinks = width < frame.width or height < frame.height
        flat = self._reformatter.reformat(
            frame,
            width=width,
            height=height,
            format="yuvj420p",
            dst_colorspace=Colorspace.ITU601,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.AREA if shrinks else Interpolation.BICUBIC,
            threads=1,
        )
        if flat is None:
            raise ClipError("frame_undecodable", f"cannot convert {frame.format.name} pictures")
        sizes = [(height, width), *[((height + 1) // 2, (width + 1) // 2)] * 2]
        planes = [_plane(plane, *size) for plane, size in zip(flat.planes, sizes, strict=False)]
        turns = round(frame.rotation / 90) % 4
        return Picture([np.ascontiguousarray(np.rot90(plane, turns)) for plane in planes])


def _plane(plane: Any, height: int, width: int) -> np.ndarray:
    """Copy of a plane of FFmpeg without the padding at the end of its lines."""
    lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return lines[:height, :width].copy()


def picture_flags(pictures: list[Picture]) -> list[str]:
    """Flags of the pictures of a clip: `black`, and `still` where more than one shows the same."""
    lumas = [picture.luma() for picture in pictures]
    flags = []
    if max(float(luma.mean()) for luma in lumas) < _BLACK:
        flags.append("black")
    if len(lumas) > 1 and all(
        luma.shape == lumas[0].shape and np.abs(luma - lumas[0]).mean() < _STILL for luma in lumas
    ):
        flags.append("still")
    return flags
