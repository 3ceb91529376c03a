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


def walk(panel: Panel, configs: Mapping[str, PILConfig], tables: tuple[str, ...] | None = None) -> WalkForward:
    """The last sessions of the panel, past the warm-up."""
    tracks = [Track(name=n, config=c) for n, c in configs.items()]
    return run_tracks(panel, tracks, start=panel.dates[WARM_UP], tables=tables)


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


def grid(n: int) -> dict[str, PILConfig]:
    """`n` configurations on 24 base-weight sets: 3 windows x 2 targets x 4 methods, then smoothings, bands and volatilities."""
    sets = itertools.product((126, 252, 504), ("constant_correlation", "identity"), ("hrp", "erc", "inverse_vol", "equal"))
    rest = itertools.product((0.5, 0.65, 0.7, 0.8, 0.85, 0.9, 0.95), (0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02), (0.08, 0.12))
    keys = ("allocation.smoothing", "turnover.band", "vol_target.target", "covariance.window", "covariance.target",
            "allocation.method")
    all_of_them = ((*r, *s) for r, s in itertools.product(rest, list(sets)))
    return {f"c{i}": PILConfig().replace(**dict(zip(keys, values, strict=True)))
            for i, values in enumerate(itertools.islice(all_of_them, n))}


def thousand(quick: bool) -> list[Row]:
    """1,000 configurations on 24 distinct base-weight sets beside one HRP walk-forward of skfolio, which has no book at all."""
    sessions, sample = (126, 40) if quick else (SESSIONS, 200)
    panel, whole = panel_of(sessions, 0.0), peers.skfolio_walk()
    sleeves = sleeve_returns(panel)
    starts = np.linspace(WARM_UP, len(sleeves) - 20, sample // 20).astype(int)
    times: dict[int, float] = {}
    theirs = 0.0
    for n in (125, 1000):
        configs = grid(n)
        times[n] = seconds(lambda configs=configs: walk(panel, configs, ("returns",)))
        if whole is not None:  # pieces of 20 consecutive sessions, half of them after each of our runs
            theirs += sum(seconds(lambda e=e: whole(sleeves[e - WINDOW:e + 20], WINDOW)) for e in starts[n == 1000::2])
    growth = float(np.log(times[1000] / times[125]) / np.log(8.0))
    one = theirs / (20 * len(starts)) * sessions
    note = (f"{times[1000] / 1000 / sessions * 1e6:.1f} µs a configuration and session; growth exponent {growth:.2f} from 125; "
            f"estimates included; skfolio timed on {20 * len(starts)} sessions and multiplied up")
    case = f"1,000 configurations, 24 base-weight sets, {sessions:,} sessions, K=8 M=50"
    if whole is None:
        return [Row(job="grid", case=case, ours_s=times[1000], note=note)]
    return [Row(job="grid", case=case, ours_s=times[1000], peer="skfolio, cross_val_predict of HRP, once", peer_s=one, note=note,
                goal=">= 1x", met=times[1000] <= one)]
