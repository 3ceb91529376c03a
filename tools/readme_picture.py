"""docs/img/ladder.svg from a finished ladder run: net value of each rung, Sharpe differences, the verdict in words.

    pil demo && python tools/readme_picture.py            # the newest run under runs/ladder
    python tools/readme_picture.py --run runs/ladder/ID   # a particular one

The picture has its own light ground, so it reads the same on a dark page. Nothing in it loads from elsewhere.
"""
from __future__ import annotations

import argparse
import json
import re
import sys
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

import pandas as pd

from pil_research.research.plots import CSS_NAMES, INK, MUTED, figure, plot_net_value, plot_sharpe_differences, svg

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "img" / "ladder.svg"
LIMIT = 150_000  # bytes


def newest(runs: Path) -> Path:
    """The last finished ladder run."""
    found = sorted(p.parent for p in runs.glob("ladder/2*/result.json"))
    if not found:
        raise SystemExit(f"no finished run under {runs.name}/ladder; run `pil demo` first")
    return found[-1]


def draw(run: Path) -> str:
    """The SVG of one run."""
    result = json.loads((run / "result.json").read_text(encoding="utf-8"))
    returns = pd.read_parquet(run / "data" / "net_returns_lag1.parquet")
    by_lag = {f"lag {i}": pd.DataFrame(result["tables"][f"lag{i}"]).T for i in (0, 1)}
    fig, (left, right) = figure(10.4, 4.3, 1, 2, width_ratios=[1.25, 1.0])
    plot_net_value(returns, ax=left)
    plot_sharpe_differences(by_lag, ax=right)
    left.set_title("Net of costs, lag 1")
    v, d = result["verdict"], result["data"]
    words = f"{v['word']}: {v['headline']}"
    facts = (f"{d['n_symbols']} {d['name']}, {len(d['sleeves'])} price-based sleeves, {d['test_start']} to {d['test_end']}, "
             f"run {result['run_id']}")
    lines = [y for x in re.split(r"(?<=\.) ", words) for y in textwrap.wrap(x, 108)]
    return standalone(svg(fig, "ladder", f"{words} {facts}."), [*lines, facts])


def standalone(inline: str, lines: list[str]) -> str:
    """An inline SVG with its colours written out, on a light card, below some lines of text."""
    for colour, variable in CSS_NAMES.items():
        inline = inline.replace(f"var({variable})", colour)
    head, body = inline.split(">", 1)
    box, label = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', head), re.search(r'aria-label="[^"]*"', head)
    if not box or not label:
        raise SystemExit("the plot has no viewBox or no aria-label")
    width, height, top = float(box[1]), float(box[2]), 16 + 16 * len(lines)
    space = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    words = "".join(f'<text x="12" y="{22 + 16 * i}" fill="{INK if i < len(lines) - 1 else MUTED}" '
                    f'font-weight="{600 if i == 0 else 400}">{escape(line)}</text>' for i, line in enumerate(lines))
    return (f'<svg {space} role="img" {label[0]} viewBox="0 0 {width:g} {height + top:g}" width="{width:g}" '
            f'height="{height + top:g}" font-family="system-ui, \'DejaVu Sans\', sans-serif" font-size="12">'
            f'<rect width="{width:g}" height="{height + top:g}" rx="6" fill="#fbfbfa"/>{words}'
            f'<svg y="{top}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">{body}</svg>\n')


def main(argv: list[str] | None = None) -> int:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of a finished run (default: the newest under runs/ladder)")
    parser.add_argument("--target", type=Path, default=TARGET)
    args = parser.parse_args(argv)
    text = draw(args.run or newest(ROOT / "runs"))
    if len(text.encode()) > LIMIT:
        raise SystemExit(f"the picture has {len(text.encode()):,} bytes, the limit is {LIMIT:,}")
    args.target.parent.mkdir(parents=True, exist_ok=True)
    args.target.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
