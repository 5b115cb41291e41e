"""The frame and the style of summary.html, light and dark, wide and narrow."""

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5b6570; --line: #dde1e6;
  --paper: #fff; --box: #f5f7f9; --bar: #2f6fb3; --bad: #b4442f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa4af; --line: #333a42;
  --paper: #14171a; --box: #1d2226; --bar: #5b9bdc; --bad: #e07a63; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 68rem; padding: 1.5rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem; border-bottom: 1px solid var(--line); }
h3 { font-size: .95rem; margin: 1rem 0 .3rem; }
p { margin: .4rem 0; color: var(--soft); }
code { font: .9em ui-monospace, monospace; }
small, figcaption, dt { color: var(--soft); font-size: .85rem; }
.tiles { display: grid; gap: .6rem; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); }
.tile { background: var(--box); border-radius: 6px; padding: .6rem .8rem; }
.tile span, .tile b, .tile small { display: block; }
.tile span { color: var(--soft); font-size: .85rem; }
.tile b { font-size: 1.5rem; line-height: 1.3; }
.tile.failed b { color: var(--bad); }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .8rem .4rem 0;
  border-bottom: 1px solid var(--line); }
th { font-size: .85rem; font-weight: 500; color: var(--soft); }
td:nth-child(2), th:nth-child(2) { text-align: right; }
td:nth-child(-n+3) { white-space: nowrap; }
td:nth-child(4) { width: 55%; }
td:first-child { width: 20%; }
td p { margin: 0 0 .3rem; font-size: .9rem; }
td p b { color: var(--ink); font-weight: 500; }
.share { display: inline-block; width: 5rem; height: .6rem; background: var(--box); }
.share i, .rows i { display: block; height: 100%; background: var(--bar); min-width: 1px; }
.reasons .share i { background: var(--bad); }
.clips { display: grid; gap: 0 2rem;
  grid-template-columns: repeat(auto-fill, minmax(min(24rem, 100%), 1fr)); }
.strip { display: flex; gap: .3rem; }
figure { margin: 0; flex: 0 1 25%; min-width: 0; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 3px;
  outline: 1px solid var(--line); }
.charts { display: grid; gap: 1rem 2.5rem;
  grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); }
.chart p { font-size: .85rem; min-height: 2.6em; }
.hist { display: grid; grid-template-columns: auto 1fr; gap: 0 .4rem; font-size: .8rem;
  color: var(--soft); }
.y { display: flex; flex-direction: column; justify-content: space-between; text-align: right;
  line-height: 1; }
.plot { display: flex; align-items: flex-end; gap: 1px; height: 9rem;
  border: solid var(--line); border-width: 1px 0; }
.plot i { flex: 1; background: var(--bar); }
.plot i[title] { min-height: 2px; }
.plot .over { opacity: .55; }
.x { grid-column: 2; position: relative; height: 1.4rem; }
.x span { position: absolute; transform: translateX(-50%); white-space: nowrap; }
.rows { display: grid; grid-template-columns: auto 1fr auto; gap: .25rem .6rem;
  align-items: center; font-size: .85rem; }
.rows span:nth-child(3n+1), .rows span:nth-child(3n) { text-align: right; }
.rows u { height: .9rem; text-decoration: none; }
dl { display: grid; gap: .3rem 1.5rem; margin: 0;
  grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); }
dd { margin: 0; }
@media (max-width: 40rem) {
  thead { display: none; }
  tr { display: grid; grid-template-columns: 1fr auto auto; border-bottom: 1px solid var(--line); }
  td { border: 0; padding: .3rem .5rem .3rem 0; }
  td:nth-child(4) { grid-column: 1 / -1; width: auto; padding-top: 0; }
  .share { width: 2.5rem; }
}
"""
FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
