"""What a download that went wrong looks like: empty, a web page, a pointer of Git LFS."""

from __future__ import annotations

from pathlib import Path

from pivot.errors import ModelError

NONE = "no file of torch.save or safetensors"


def refuse_broken_download(path: str | Path) -> None:
    """ModelError, one line, for a file whose first bytes tell that it holds no weights at all."""
    with Path(path).open("rb") as file:
        start = file.read(512)
    if not start:
        raise ModelError(f"{path} is empty, {NONE}: the download did not begin; get it again")
    if start.startswith(b"version https://git-lfs"):
        raise ModelError(
            f"{path} is a pointer of Git LFS, {NONE}; fetch the file itself with `git lfs pull`"
        )
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        raise ModelError(
            f"{path} is a web page, {NONE}: the link led to a notice or a log-in; get it again"
        )
