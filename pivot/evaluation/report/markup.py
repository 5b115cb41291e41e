"""HTML without surprises: elements that escape what they hold, and the one page they stand in."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable

# Nothing is fetched, no script runs: the browser itself refuses what the page never does.
POLICY = "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'"
VOID = {"img", "meta", "br"}


class Safe(str):
    """Text that is HTML already; every other string is escaped when it enters an element."""

    __slots__ = ()


def tag(name: str, /, *children: str | None, **attributes: str | None) -> Safe:
    """An element. Attributes: class_ for class, aria_label for aria-label; None leaves one out."""
    known = ((k.rstrip("_").replace("_", "-"), v) for k, v in attributes.items() if v is not None)
    opening = "".join(f' {key}="{html.escape(value)}"' for key, value in known)
    if name in VOID:
        return Safe(f"<{name}{opening}>")
    return Safe(f"<{name}{opening}>{join(children)}</{name}>")


def join(children: Iterable[str | None]) -> Safe:
    """Children one after the other, escaped unless Safe; None is left out."""
    texts = (c if isinstance(c, Safe) else html.escape(c) for c in children if c is not None)
    return Safe("".join(texts))


def data_uri(data: bytes, kind: str) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def page(title: str, *body: str | None) -> str:
    """The whole document: one file, no script, nothing from elsewhere."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        Safe(f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Safe(CSS)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"


CSS = """
:root { --paper:#fdfdfc; --card:#f4f5f6; --ink:#1d2433; --muted:#5c6575; --line:#d5dae2;
  --accent:#0077bb; --good:#00796b; --warm:#b4520c; }
@media (prefers-color-scheme: dark) { :root { --paper:#14171d; --card:#1d2129; --ink:#e6e9ef;
  --muted:#a0a9b8; --line:#343b47; --accent:#66b5ea; --good:#4ecbb8; --warm:#ff9d5c; } }
* { box-sizing:border-box; }
html { -webkit-text-size-adjust:100%; }
body { margin:0; background:var(--paper); color:var(--ink);
  font:16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main, header, footer { max-width:1080px; margin:0 auto; padding:0 16px; }
header { padding-top:36px; }
h1 { font-size:1.75rem; line-height:1.2; letter-spacing:-.015em; margin:0 0 .5rem; }
h2 { font-size:1.25rem; line-height:1.3; margin:3rem 0 .5rem; padding-top:1.25rem;
  border-top:1px solid var(--line); }
h3 { font-size:1rem; margin:1.5rem 0 .25rem; }
p, ul.findings { max-width:68ch; margin:.5rem 0; }
.lead { font-size:1.1rem; }
.quiet, figcaption, .note { color:var(--muted); font-size:.9rem; }
a { color:var(--accent); }
.glance { display:grid; grid-template-columns:repeat(auto-fit, minmax(300px, 1fr)); gap:8px 40px;
  align-items:start; margin-top:1.25rem; }
ul.findings { padding:0; list-style:none; }
ul.findings li { padding:.55rem 0; border-bottom:1px solid var(--line); }
ul.findings li:first-child { font-size:1.2rem; line-height:1.4; padding-top:0; }
ul.findings li:last-child { border-bottom:0; }
figure { margin:1rem 0 0; min-width:0; }
figure svg { display:block; width:100%; max-width:480px; height:auto; }
figure svg * { stroke-linejoin:round; stroke-linecap:butt; }
figure svg text { font-family:inherit !important; font-variant-numeric:tabular-nums; }
figcaption { margin-top:.35rem; max-width:60ch; }
.figures { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 310px), 1fr));
  gap:8px 32px; align-items:start; }
.pairs { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 420px), 1fr));
  gap:8px 32px; align-items:start; }
.scroll { overflow-x:auto; margin:1rem 0 .5rem; }
table.main { max-width:860px; }
table { border-collapse:collapse; width:100%; font-variant-numeric:tabular-nums; }
caption { text-align:left; color:var(--muted); font-size:.9rem; padding-bottom:.5rem; }
th, td { padding:.45rem .5rem; text-align:right; border-bottom:1px solid var(--line);
  vertical-align:top; }
th { font-weight:500; }
thead th { color:var(--muted); font-size:.85rem; vertical-align:bottom; white-space:nowrap; }
th[scope=row] { text-align:left; min-width:7.5rem; }
th[scope=row] small, td small { display:block; color:var(--muted); font-weight:400;
  font-size:.78rem; line-height:1.3; }
td small { white-space:nowrap; }
tr.aside th, tr.aside td { color:var(--muted); }
td strong { font-weight:750; }
td u { text-decoration-color:var(--accent); text-decoration-thickness:2px;
  text-underline-offset:3px; }
.clip { border-top:1px solid var(--line); padding:1.25rem 0 .75rem; }
.clip h3 { margin:0 0 .5rem; }
.clip h3 span { color:var(--muted); font-weight:400; font-size:.85rem; margin-left:.4rem;
  overflow-wrap:anywhere; }
.frames { display:grid; grid-auto-flow:column; grid-auto-columns:minmax(0, 160px); gap:6px; }
.frames img { width:100%; height:auto; display:block; border-radius:4px; background:var(--card); }
audio { width:100%; max-width:480px; margin:.6rem 0 .2rem; display:block; }
.lists { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(100%, 270px), 1fr));
  gap:4px 32px; }
.lists h4 { font-size:.85rem; color:var(--muted); font-weight:600; margin:.7rem 0 .2rem; }
.lists ul, .lists ol { margin:0; padding:0; list-style:none; font-size:.92rem; line-height:1.4; }
.lists li { padding:.22rem 0; display:flex; gap:.6rem; overflow-wrap:anywhere; }
.lists li > span:first-child { color:var(--muted); font-variant-numeric:tabular-nums; flex:none;
  font-weight:400; }
.lists li.own { color:var(--good); font-weight:600; }
.lists li.kind { color:var(--ink); }
.lists li.other { color:var(--muted); }
.badge { display:inline-block; font-size:.72rem; font-weight:600; border:1px solid currentColor;
  border-radius:3px; padding:0 .3em; margin-left:.4em; white-space:nowrap; color:var(--good); }
.lists li.kind .badge { color:var(--warm); }
pre { background:var(--card); padding:.9rem 1rem; overflow-x:auto; border-radius:4px;
  font:.82rem/1.6 ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font:.9em ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
.stages { max-width:640px; }
.stages td:last-child { width:45%; }
.stages i { display:block; height:.6em; margin-top:.5em; background:var(--accent); opacity:.75;
  border-radius:2px; }
summary { cursor:pointer; color:var(--muted); padding:.3rem 0; }
footer { padding-bottom:48px; }
@media (max-width:520px) { th, td { padding:.4rem .3rem; font-size:.92rem; }
  table.main { font-size:.95rem; } th[scope=row] { min-width:6.6rem; } h1 { font-size:1.5rem; } }
@media print { .clip, figure { break-inside:avoid; } }
"""
