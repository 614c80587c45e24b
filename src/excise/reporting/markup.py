"""The parts that the report is written with: its style, lists, tables, figures. Everything from data is escaped."""

import base64
import re
from collections.abc import Iterable, Sequence
from html import escape

from excise.reporting.figures import Figure

STYLE = """
body { font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #222; background: #fff;
  max-width: 66rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .6rem; border-bottom: 1px solid #ccc; padding-bottom: .2rem; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .4rem; }
.sub { color: #555; margin: 0 0 1.4rem; }
.answer { font-size: 1.12rem; border-left: 5px solid #0072b2; background: #f3f7fa; padding: .8rem 1rem;
  margin: 1rem 0; }
.answer.none { border-color: #d55e00; background: #fbf5f1; }
.answer p { margin: 0; } .answer p + p { margin-top: .5rem; font-size: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .82rem; font-variant-numeric: tabular-nums; margin: .4rem 0; }
th, td { padding: .28rem .5rem; text-align: right; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { vertical-align: bottom; border-bottom: 2px solid #888; font-weight: 600; white-space: normal; }
th:first-child, td:first-child, th.prose, td.prose { text-align: left; }
td.prose { white-space: normal; min-width: 5.5rem; overflow-wrap: anywhere; }
tr.winner td { font-weight: 700; background: #f3f7fa; } tr.baseline td { border-bottom: 2px solid #888; }
tr.control td { color: #666; } tr.broken td { color: #8a3b00; background: #fdf6f1; }
.note, figcaption { font-size: .88rem; color: #444; } figure { margin: 1rem 0 2rem; }
figure img { width: min(100%, var(--drawn)); min-width: calc(.63 * var(--drawn)); height: auto; display: block; }
details { margin: .5rem 0; } summary { cursor: pointer; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; } .pair > div { min-width: 0; }
@media (max-width: 40rem) { .pair { grid-template-columns: 1fr; } }
.sample { border: 1px solid #ddd; border-radius: 4px; padding: .2rem .8rem; }
.sample p { white-space: pre-wrap; overflow-wrap: anywhere; margin: .4rem 0; font-size: .92rem; }
.score { color: #555; font-size: .82rem; }
pre { font-size: .78rem; overflow-x: auto; background: #f6f6f6; padding: .6rem; }
@media print { body { max-width: none; font-size: 11pt; } figure, tr { break-inside: avoid; }
  .scroll { overflow: visible; } table { font-size: 7.5pt; } th, td { padding: .15rem .25rem; }
  figure img { min-width: 0; } }
"""

REM_PER_POINT = 0.09
"""How large a plot is shown: the same scale for all, so that their letters are equally large."""


def items(sentences: Iterable[str], *, ordered: bool = False) -> str:
    """A list of sentences."""
    tag = "ol" if ordered else "ul"
    return f"<{tag}>" + "".join(f"<li>{escape(sentence)}</li>" for sentence in sentences) + f"</{tag}>"


def figure(plot: Figure) -> str:
    """A plot with its heading and its caption."""
    picture = plot.picture()
    (width,) = re.findall(rb'<svg [^>]*?width="([\d.]+)pt"', picture)
    drawn = f"--drawn: {REM_PER_POINT * float(width):.1f}rem"
    source = f"data:image/svg+xml;base64,{base64.b64encode(picture).decode()}"
    return (
        f'<figure><h3>{escape(plot.title)}</h3><div class="scroll"><img alt="{escape(plot.title)}" style="{drawn}" '
        f'src="{source}"></div><figcaption>{escape(plot.caption)}</figcaption></figure>'
    )


def table(header: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], *, prose: Sequence[str] = ()) -> str:
    """A table; ``rows`` are pairs of a CSS class and the cells, ``prose`` names the columns whose text may wrap."""
    kinds = ["prose" if name in prose else "" for name in header]
    head = "".join(
        f'<th class="{kind}">{escape(name).replace(":", ":<wbr>")}</th>'
        for name, kind in zip(header, kinds, strict=True)
    )
    body = "".join(
        f'<tr class="{style}">'
        + "".join(f'<td class="{kind}">{escape(cell)}</td>' for cell, kind in zip(cells, kinds, strict=True))
        + "</tr>"
        for style, cells in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
