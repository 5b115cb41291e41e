"""A decoded frame to a JPEG: short side scaled and colours set in YUV, rotation applied."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np
import simplejpeg
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from video_prep.errors import ClipError

_BLACK = 24.0  # luma (full range 0-255) that 98 % of a black picture stay below: dark is not black
_STILL = 1.0  # mean difference of luma below which two pictures are called the same
_BLOCK = 16  # pixels of a side of the blocks in which pictures of two decoders are compared
_OTHER = 4.0  # difference of a block's mean luma above which they are different frames


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

    def __init__(self, planes: list[np.ndarray], rotation: int = 0) -> None:
        self.planes = planes
        self.rotation = rotation  # degrees counterclockwise by which it was turned upright

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        height, width = self.planes[0].shape
        return width, height

    def jpeg(self, quality: int) -> bytes:
        """JPEG bytes; the planes go in as they are, without a round trip through RGB."""
        return bytes(simplejpeg.encode_jpeg_yuv_planes(*self.planes, quality=quality))

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
        size = output_size(frame.width, frame.height, self._aspect, self._short_side)
        turns = round(frame.rotation / 90) % 4
        planes = self._convert(frame, *size)
        upright = [np.ascontiguousarray(np.rot90(plane, turns)) for plane in planes]
        return Picture(upright, 90 * turns)

    def upright(self, rgb: np.ndarray, exact: Picture) -> Picture:
        """What another decoder gives for the frame of `exact`, uint8 (height, width, 3).

        It comes upright, and is brought to the same size.
        """
        frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
        return Picture(self._convert(frame, *exact.size), exact.rotation)

    def _convert(self, frame: Any, width: int, height: int) -> list[np.ndarray]:
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
        return [_plane(plane, *size) for plane, size in zip(flat.planes, sizes, strict=False)]


def mismatch(pictures: list[Picture], exact: list[Picture]) -> list[str]:
    """The flag `decoder_mismatch` where another decoder's pictures are not the exact frames."""
    pairs = zip(pictures, exact, strict=True)
    return ["decoder_mismatch"] if any(_distance(*pair) > _OTHER for pair in pairs) else []


def _distance(one: Picture, other: Picture) -> float:
    """The largest difference of luma between two pictures of one size, over blocks' means."""
    planes = (picture.planes[0].astype(np.float32) for picture in (one, other))
    gap = np.subtract(*planes)
    high, wide = (side // _BLOCK * _BLOCK for side in gap.shape)
    if not high or not wide:
        return float(np.abs(gap).max())
    blocks = gap[:high, :wide].reshape(high // _BLOCK, _BLOCK, wide // _BLOCK, _BLOCK)
    return float(np.abs(blocks.mean(axis=(1, 3))).max())


def _plane(plane: Any, height: int, width: int) -> np.ndarray:
    """Copy of a plane of FFmpeg without the padding at the end of its lines."""
    lines = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
    return lines[:height, :width].copy()


def picture_flags(pictures: list[Picture]) -> list[str]:
    """Flags of the pictures of a clip: `black`, and `still` where more than one shows the same."""
    lumas = [picture.luma() for picture in pictures]
    flags = []
    if max(float(np.quantile(luma, 0.98)) for luma in lumas) < _BLACK:
        flags.append("black")
    if len(lumas) > 1 and all(
        luma.shape == lumas[0].shape and np.abs(luma - lumas[0]).mean() < _STILL for luma in lumas
    ):
        flags.append("still")
    return flags
