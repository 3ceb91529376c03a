"""docs/img/pipeline.svg: stages 0 to 8 in the order in which they act. Plain SVG on a light card, for light and dark pages."""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT / "docs" / "img" / "pipeline.svg"
INK, MUTED, LINE, CARD, BLUE, SAND = "#1b1f24", "#56606b", "#8a94a0", "#fbfbfa", "#e4eef8", "#faeede"
WIDTH, HEIGHT, BOX, TALL, STEP = 980, 416, 166, 84, 192
Stage = tuple[str, str, tuple[str, ...]]
TERMS: tuple[Stage, ...] = (
    ("8a", "Capital tier", ("caps, tickets and names", "for this account size")),
    ("6", "Regime", ("vol target 8, 10 or 12 %", "tilt towards defensive")))
TOP: tuple[Stage, ...] = (
    ("0", "Normalise", ("unit gross, then every", "sleeve at 10 % vol")),
    ("1", "Allocate", ("HRP on a shrunk Σ; tilt,", "cap, smooth, probation")),
    ("2", "Assemble", ("net by symbol, fold", "equivalent wrappers")),
    ("3", "One vol target", ("the only place where", "volatility is scaled, ≤ 2×")),
    ("4", "Caps", ("name, cluster, net, gross:", "each only shrinks")))
LOW: tuple[Stage, ...] = (
    ("5", "Drawdown", ("tapers from 5 to 12 %,", "kill tiers cut further")),
    ("", "Sizing", ("half-Kelly, exactly once", "")),
    ("7", "Turnover", ("risk level first, then", "band and cost gate")),
    ("8b", "Vehicles", ("whole lots, rounded", "toward zero")),
    ("", "Last line", ("caps again on the final", "book, or no decision")))


def box(x: float, y: float, stage: Stage, fill: str) -> str:
    """One stage: number, name, two lines."""
    number, name, lines = stage
    title = f"{number} · {name}" if number else name
    rows = [f'<text x="{x + 12}" y="{y + 25}" font-weight="600" fill="{INK}">{escape(title)}</text>']
    rows += [f'<text x="{x + 12}" y="{y + 47 + 17 * i}" font-size="11.5" fill="{MUTED}">{escape(t)}</text>'
             for i, t in enumerate(lines) if t]
    return (f'<rect x="{x}" y="{y}" width="{BOX}" height="{TALL}" rx="7" fill="{fill}" stroke="{LINE}"/>' + "".join(rows))


def arrow(points: str) -> str:
    """A line with a head at its end."""
    return f'<polyline points="{points}" fill="none" stroke="{LINE}" stroke-width="1.6" marker-end="url(#head)"/>'


def note(x: float, y: float, text: str, anchor: str = "start") -> str:
    """A small remark."""
    return f'<text x="{x}" y="{y}" font-size="11.5" fill="{MUTED}" text-anchor="{anchor}">{escape(text)}</text>'


def draw() -> str:
    """The whole picture."""
    x0, y1, y2, y3 = 22, 44, 170, 296
    parts = [note(x0, 30, "The terms come first; then stages 0 to 8 run once a slot. No expected return enters.")]
    parts += [box(x0 + i * STEP, y1, s, SAND) for i, s in enumerate(TERMS)]
    parts += [box(x0 + i * STEP, y2, s, BLUE) for i, s in enumerate(TOP)]
    parts += [box(x0 + i * STEP, y3, s, BLUE) for i, s in enumerate(LOW)]
    for y in (y2, y3):
        parts += [arrow(f"{x0 + i * STEP + BOX + 3},{y + TALL / 2} {x0 + (i + 1) * STEP - 4},{y + TALL / 2}") for i in range(4)]
    parts.append(arrow(f"{x0 + BOX / 2},{y1 + TALL + 3} {x0 + BOX / 2},{y2 - 4}"))
    parts.append(arrow(f"{x0 + STEP + BOX / 2},{y1 + TALL + 3} {x0 + STEP + BOX / 2},{y2 - 4}"))
    down = x0 + 4 * STEP + BOX / 2
    parts.append(arrow(f"{down},{y2 + TALL + 3} {down},{y2 + TALL + 21} {x0 + BOX / 2},{y2 + TALL + 21} {x0 + BOX / 2},{y3 - 4}"))
    parts += [note(x0 + 2 * STEP, y1 + 20, "In: asset returns to yesterday, sleeve targets, equity, positions,"),
              note(x0 + 2 * STEP, y1 + 37, "regime read, operator kills (read before anything else)."),
              note(x0 + 2 * STEP, y1 + 62, "Out: target exposures, trades, alarms, what bound,"),
              note(x0 + 2 * STEP, y1 + 79, "one record a stage, and the state for the next slot."),
              note(x0, y3 + TALL + 23, "W before sizing is a fraction of the sizing base; e after it a fraction of equity.")]
    label = ("Pipeline: capital tier and regime set the terms; 0 normalise, 1 allocate, 2 assemble, 3 one volatility target, "
             "4 caps, 5 drawdown governor, half-Kelly sizing, 7 turnover, 8 vehicles, last-line check.")
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
            f'role="img" aria-label="{escape(label)}" font-family="system-ui, \'DejaVu Sans\', sans-serif" font-size="13.5">')
    tip = (f'<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
           f'<path d="M0 0L8 4L0 8z" fill="{LINE}"/></marker></defs>')
    ground = f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="{CARD}"/>'
    return "\n".join([head, tip, ground, *parts, "</svg>"]) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Write the picture, or compare it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 when the file is out of date")
    args = parser.parse_args(argv)
    if args.check:
        return 0 if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == draw() else 1
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(draw(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
