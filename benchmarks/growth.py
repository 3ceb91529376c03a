"""Growth exponents: the slope of log time on log size over the upper half of a sixteen-fold range."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
from allocate import engines, on, sample_covariance
from harness import Effort, Row, alternate, slope
from live import growth_in_symbols
from risk import growth_in_m
from selection import growth_in_n
from walk import WARM_UP, grid, panel_of, walk

from pil_research import accel
from pil_research.allocators import erc, hrp
from pil_research.config import PILConfig

Measured = tuple[str, list[int], dict[int, float]]


def row(axis: str, limit: float, found: Measured, why: str) -> Row:
    """One curve: judged where it is steeper, at its upper end, since a fixed cost flattens the lower one."""
    case, sizes, took = found
    points = [(float(n), took[n]) for n in sizes]
    steep = slope(points[len(points) // 2:])
    note = f"{slope(points):.2f} over the whole range; seconds are those of the largest size"
    return Row(job="growth", case=f"{case}: {axis} {sizes[0]:,} to {sizes[-1]:,}", ours_s=points[-1][1], axis=axis,
               curve=tuple(points), exponent=steep, goal=f"exponent <= {limit:g}", met=steep <= limit,
               note=note if steep <= limit else f"{note}; missed by {steep - limit:.2f}: {why}")


def in_sessions(effort: Effort) -> Measured:
    """One configuration, everything, by sessions walked."""
    sizes = effort.pick([4, 8, 16, 32, 64], [32, 63, 126, 252, 504], [315, 630, 1260, 2520, 5040])
    panel = panel_of(sizes[-1], 0.0)
    parts = {n: panel.select(end=panel.dates[WARM_UP + n - 1]) for n in sizes}
    took = alternate({str(n): (lambda p=p: walk(p, {"hrp": PILConfig()}, ("returns",))) for n, p in parts.items()},
                     effort.pick(1, 1, 3))
    return "walk-forward, K=8 M=50", sizes, {n: took[str(n)] for n in sizes}


def in_configurations(effort: Effort) -> Measured:
    """The grid on 24 base-weight sets, by configurations."""
    sessions, sizes = effort.pick((5, [1, 2, 4, 8, 16]), (32, [62, 125, 250, 500, 1000]), (252, [62, 125, 250, 500, 1000]))
    panel = panel_of(sessions, 0.0)
    grids = {n: grid(n) for n in sizes}
    took = alternate({str(n): (lambda c=c: walk(panel, c, ("returns",))) for n, c in grids.items()}, effort.pick(1, 1, 3))
    return f"walk-forward of {sessions} sessions", sizes, {n: took[str(n)] for n in sizes}


def in_sleeves(effort: Effort, allocate: Callable[[np.ndarray], np.ndarray], name: str) -> list[tuple[str, Measured]]:
    """Seconds of one covariance out of a stack, by sleeves, on each engine."""
    sizes = effort.pick([2, 3, 4], [4, 8, 16, 32, 64], [4, 8, 16, 32, 64])
    stacks = {}
    for k in sizes:
        rng = np.random.default_rng(k)
        windows = rng.standard_normal((effort.pick(3, 50, 200), 252, k)) + 0.5 * rng.standard_normal((1, 252, 1))
        stacks[k] = np.array([sample_covariance(w) for w in windows])
    out = []
    for engine in engines():
        took = alternate({str(k): on(engine, lambda s=s: np.asarray(allocate(s))) for k, s in stacks.items()},
                         effort.pick(1, 2, 5))
        each = {k: took[str(k)] / len(stacks[k]) for k in sizes}
        out.append((engine, (f"{name} of a stack, {engine.split()[0]}", sizes, each)))
    accel.use(False)
    return out


def growth(effort: Effort) -> list[Row]:
    """Every axis of the goals."""
    ordering = "exact optimal leaf ordering is cubic in K at worst, and takes over at large K"
    newton = "a Newton step solves a K x K system, cubic in K, and takes over at large K"
    cache = "large windows leave the processor's cache"
    return [row("T", 1.1, in_sessions(effort), "see the whole range"),
            row("configurations", 1.1, in_configurations(effort), "large stacks leave the processor's cache"),
            row("N", 1.1, growth_in_n(effort), cache),
            row("M", 1.3, growth_in_m(effort), cache),
            row("M", 1.3, growth_in_symbols(effort), cache),
            *(row("K", 2.3, found, ordering) for _, found in in_sleeves(effort, hrp, "HRP")),
            *(row("K", 2.3, found, newton) for _, found in in_sleeves(effort, erc, "ERC"))]
