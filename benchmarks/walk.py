"""A 20-year daily walk-forward of the whole layer beside HRP alone in the peers, and 100 configurations beside one."""
from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping

import numpy as np
import peers
from harness import Row, gap, seconds

from pil_research.allocators import hrp
from pil_research.config import PILConfig
from pil_research.research.panel import Panel
from pil_research.research.synthetic_panel import synthetic_panel
from pil_research.research.walk_forward import Track, WalkForward, run_tracks

SESSIONS, WINDOW, WARM_UP = 5040, 252, 300
CLOCK: dict[str, Panel] = {}


def panel_of(sessions: int, missing: float) -> Panel:
    """A synthetic panel, K = 8 and M = 50, with `sessions` sessions to walk."""
    key = f"{sessions}|{missing}"
    if key not in CLOCK:
        CLOCK[key] = synthetic_panel(11, n_sleeves=8, n_symbols=50, n_days=sessions + WARM_UP, missing=missing,
                                     staggered=False, start="2000-01-03")
    return CLOCK[key]


def walk(panel: Panel, configs: Mapping[str, PILConfig]) -> WalkForward:
    """The last sessions of the panel, past the warm-up."""
    tracks = [Track(name=n, config=c) for n, c in configs.items()]
    return run_tracks(panel, tracks, start=panel.dates[WARM_UP])


def sleeve_windows(panel: Panel, dates: int) -> list[np.ndarray]:
    """Windows of 252 sleeve returns ending at evenly spaced dates; what the peers are given."""
    r = panel.returns.fillna(0.0).to_numpy()
    held = np.roll(np.nan_to_num(panel.target_array()), 1, axis=0)
    sleeves = np.einsum("tkm,tm->tk", held, r)
    ends = np.linspace(WARM_UP, len(r) - 1, dates).astype(int)
    return [sleeves[e - WINDOW:e] for e in ends]


def walk_forward(quick: bool) -> list[Row]:
    """One full configuration, estimates included, against HRP alone."""
    sessions, sample, rounds = (504, 20, 1) if quick else (SESSIONS, 100, 3)
    panel = panel_of(sessions, 0.0)
    others, windows = peers.available(), sleeve_windows(panel, sample)
    for f in others.values():
        f(windows[0])
    ours, spent = [], dict.fromkeys(others, 0.0)
    for part in np.array_split(np.arange(sample), rounds):  # ours whole, then a third of the sample of each peer
        ours.append(seconds(lambda: walk(panel, {"hrp": PILConfig()})))
        for n, f in others.items():
            spent[n] += seconds(lambda f=f, part=part: [f(windows[i]) for i in part])
    took = statistics.median(ours)
    base = f"{sessions:,} sessions, K=8 M=50"
    rows = [Row(job="walk-forward", case=base, ours_s=took, peer=f"{n}, HRP alone", peer_s=spent[n] / sample * sessions,
                difference=max(gap(hrp(np.cov(w, rowvar=False)), f(w)) for w in windows),
                compares="HRP weights on the sampled windows", goal=">= 10x" if n == "skfolio" else "",
                met=spent[n] / sample * sessions >= 10.0 * took if n == "skfolio" else None,
                note=f"ours: estimates, all stages, costs. Peers: one HRP fit a session, timed on {sample} dates spread over "
                     f"the period and multiplied up to {sessions:,}") for n, f in others.items()]
    holes = panel_of(sessions, 0.01)
    rows.append(Row(job="walk-forward", case=f"{base}, 1 % of quotes missing",
                    ours_s=seconds(lambda: walk(holes, {"hrp": PILConfig()})), note="windows with gaps take the pairwise path"))
    return rows


def hundred() -> dict[str, PILConfig]:
    """100 configurations that share estimates: 5 smoothings x 5 bands x 4 volatility targets."""
    grid = itertools.product((0.5, 0.65, 0.8, 0.9, 0.95), (0.0025, 0.005, 0.0075, 0.01, 0.015), (0.06, 0.08, 0.1, 0.12))
    return {f"{s}|{b}|{v}": PILConfig().replace(**{"allocation.smoothing": s, "turnover.band": b, "vol_target.target": v})
            for s, b, v in grid}


def configurations(quick: bool) -> list[Row]:
    """The time of 100 configurations over the time of one."""
    sessions, rounds = (252, 1) if quick else (SESSIONS, 3)
    panel, many = panel_of(sessions, 0.0), hundred()
    name = "0.8|0.0075|0.1"
    times: dict[str, list[float]] = {"one": [], "hundred": []}
    out: dict[str, WalkForward] = {}

    def run(which: str) -> None:
        out[which] = walk(panel, many if which == "hundred" else {name: many[name]})

    for _ in range(rounds):
        for which in times:
            times[which].append(seconds(lambda which=which: run(which)))
    one, hundred_s = (statistics.median(times[w]) for w in ("one", "hundred"))
    base = f"{sessions:,} sessions, K=8 M=50"
    return [Row(job="configurations", case=f"{base}: 1", ours_s=one),
            Row(job="configurations", case=f"{base}: 100", ours_s=hundred_s, goal="< 3 times the time of one",
                met=hundred_s < 3.0 * one, difference=gap(out["one"].returns[name], out["hundred"].returns[name]),
                compares="daily net returns of the same configuration, run alone and among 100",
                note=f"{hundred_s / one:.2f} times the time of one, {hundred_s / 100 / sessions * 1e6:.0f} µs a configuration "
                     "and session")]
