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


def sleeve_returns(panel: Panel) -> np.ndarray:
    """Returns of the sleeves, one column each; what the peers are given."""
    held = np.roll(np.nan_to_num(panel.target_array()), 1, axis=0)
    return np.einsum("tkm,tm->tk", held, panel.returns.fillna(0.0).to_numpy())


def walk_forward(quick: bool) -> list[Row]:
    """One full configuration, estimates included, against HRP alone."""
    sessions, sample, rounds = (504, 20, 1) if quick else (SESSIONS, 100, 3)
    panel, others, whole = panel_of(sessions, 0.0), peers.available(), peers.skfolio_walk()
    sleeves = sleeve_returns(panel)
    ends = np.linspace(WARM_UP, len(sleeves) - 1, sample).astype(int)
    jobs = {f"{n}, HRP refitted daily": [lambda f=f, e=e: f(sleeves[e - WINDOW:e]) for e in ends] for n, f in others.items()}
    if whole is not None:  # pieces of 20 consecutive sessions
        jobs["skfolio, cross_val_predict of HRP"] = [lambda e=e: whole(sleeves[e - WINDOW:e + 20], WINDOW)
                                                     for e in ends[:-1:20]]
    for calls in jobs.values():
        calls[0]()
    ours, spent = [], dict.fromkeys(jobs, 0.0)
    for r in range(rounds):  # ours whole, then a part of each peer's sample
        ours.append(seconds(lambda: walk(panel, {"hrp": PILConfig()})))
        for n, calls in jobs.items():
            spent[n] += seconds(lambda calls=calls, r=r: [call() for call in calls[r::rounds]])
    return [*_against_peers(sessions, statistics.median(ours), {n: s / sample for n, s in spent.items()}, sample,
                            {f"{n}, HRP refitted daily": max(gap(hrp(np.cov(sleeves[e - WINDOW:e], rowvar=False)),
                                                                 f(sleeves[e - WINDOW:e])) for e in ends)
                             for n, f in others.items()}),
            Row(job="walk-forward", case=f"{sessions:,} sessions, K=8 M=50, 1 % of quotes missing",
                ours_s=seconds(lambda: walk(panel_of(sessions, 0.01), {"hrp": PILConfig()})),
                note="windows with gaps take the pairwise path")]


def _against_peers(sessions: int, ours: float, fit: Mapping[str, float], sample: int, apart: Mapping[str, float]) -> list[Row]:
    """A row a peer; `fit` seconds of one session."""
    note = (f"ours: estimates, all stages, costs. Peers: HRP alone, timed on {sample} sessions spread over the period and "
            f"multiplied up to {sessions:,}")
    return [Row(job="walk-forward", case=f"{sessions:,} sessions, K=8 M=50", ours_s=ours, peer=n, peer_s=s * sessions,
                difference=apart.get(n), compares="HRP weights on the sampled windows", note=note,
                **({"goal": ">= 10x", "met": s * sessions >= 10.0 * ours} if n.startswith("skfolio") else {}))
            for n, s in fit.items()]


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
