"""A 20-year daily walk-forward of the whole layer beside HRP alone in the peers, and 100 configurations beside one."""
from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import peers
from allocate import engines, on
from harness import Effort, Row, absent, alternate, gap, goal_of, missed, ready, seconds

from pil_research import accel
from pil_research.allocators import hrp
from pil_research.config import PILConfig
from pil_research.engine import NUMPY
from pil_research.estimators.covariance import rolling_covariance, sample_covariance
from pil_research.research.panel import Panel
from pil_research.research.synthetic_panel import synthetic_panel
from pil_research.research.walk_forward import Track, WalkForward, run_tracks

SESSIONS, WINDOW, WARM_UP = 5040, 252, 300
CLOCK: dict[str, Panel] = {}


def panel_of(sessions: int, missing: float, k: int = 8, m: int = 50) -> Panel:
    """A synthetic panel with `sessions` sessions to walk."""
    key = f"{sessions}|{missing}|{k}|{m}"
    if key not in CLOCK:
        CLOCK[key] = synthetic_panel(11, n_sleeves=k, n_symbols=m, n_days=sessions + WARM_UP, missing=missing,
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


def daily(sleeves: np.ndarray) -> np.ndarray:
    """HRP alone, as a peer does it: every session a covariance of 252 rows, weights, and the return of the next one."""
    return np.array([hrp(sample_covariance(sleeves[t - WINDOW:t])) @ sleeves[t] for t in range(WARM_UP, len(sleeves))])


def batched(sleeves: np.ndarray) -> np.ndarray:
    """The same, all covariances in one pass and all weights in one call."""
    ends = np.arange(WARM_UP - 1, len(sleeves) - 1)
    weights = hrp(rolling_covariance(sleeves, WINDOW, target="none", ends=ends))
    return np.asarray(np.vecdot(weights, sleeves[WARM_UP:]))


@dataclass(frozen=True)
class Sampled:
    """Seconds a session of each peer, and how far its HRP weights are from ours on the sampled windows."""

    fit: dict[str, float]
    apart: dict[str, float]
    sample: int


def peers_and_ours(sleeves: np.ndarray, mine: Mapping[str, Callable[[], object]], sample: int,
                   rounds: int) -> tuple[dict[str, float], Sampled]:
    """Ours whole, then a part of each peer's sample, in turns."""
    others, whole = peers.hrp_peers(), peers.skfolio_walk()
    ends = np.linspace(WARM_UP, len(sleeves) - 1, sample).astype(int)
    jobs = {f"{n}, daily": [lambda f=f, e=e: f(sleeves[e - WINDOW:e]) for e in ends] for n, f in others.items()}
    if whole is not None:  # pieces of 20 consecutive sessions
        jobs["skfolio cross_val_predict"] = [lambda e=e: whole(sleeves[e - WINDOW:e + 20], WINDOW)
                                                     for e in ends[:-1:20]]
    for calls in (*jobs.values(), list(mine.values())):
        ready(calls[0])
        calls[0]()
    ours: dict[str, list[float]] = {n: [] for n in mine}
    spent = dict.fromkeys(jobs, 0.0)
    for r in range(rounds):
        for n, call in mine.items():
            ours[n].append(seconds(call))
        for n, calls in jobs.items():
            spent[n] += seconds(lambda calls=calls, r=r: [call() for call in calls[r::rounds]])
    apart = {f"{n}, daily": max(gap(hrp(np.cov(sleeves[e - WINDOW:e], rowvar=False),
                                                     leaf_order=n != "PyPortfolioOpt"), f(sleeves[e - WINDOW:e])) for e in ends)
             for n, f in others.items()}
    per = {n: sum(len(sleeves[e - WINDOW:e + 20]) - WINDOW for e in ends[:-1:20]) if "cross" in n else sample for n in jobs}
    return ({n: statistics.median(s) for n, s in ours.items()},
            Sampled({n: s / per[n] for n, s in spent.items()}, apart, sample))


def walk_forward(effort: Effort) -> list[Row]:
    """HRP alone, day by day, batched and compiled, beside HRP alone in the peers; then the whole layer beside the same."""
    sessions, sample, rounds = effort.pick((30, 21, 1), (504, 21, 1), (SESSIONS, 101, 3))
    panel = panel_of(sessions, 0.0)
    sleeves = sleeve_returns(panel)
    found = engines()
    fast = next((n for n in found if n != NUMPY), None)
    mine: dict[str, Callable[[], object]] = {
        "the whole layer": lambda: walk(panel, {"hrp": PILConfig()}),
        "HRP alone, a call a session": lambda: daily(sleeves), "HRP alone, batched": lambda: batched(sleeves)}
    mine = {n: on(NUMPY, call) for n, call in mine.items()}
    if fast:
        mine["HRP alone, batched, numba"] = on(fast, lambda: batched(sleeves))
    ours, theirs = peers_and_ours(sleeves, mine, sample, rounds)
    accel.use(False)
    single, same = daily(sleeves), 0.0
    for name, call in mine.items():
        if "batched" in name:
            ready(call)
            same = max(same, gap(single, call()))
    accel.use(False)
    return [*_alone(sessions, {n: s for n, s in ours.items() if "alone" in n}, theirs, fast, same),
            *_layer(sessions, ours["the whole layer"], theirs), *_equal(sessions, panel, sleeves, rounds),
            Row(job="walk-forward, whole layer", case=f"{sessions:,} sessions, K=8 M=50, 1 % of quotes missing",
                ours_s=seconds(lambda: walk(panel_of(sessions, 0.01), {"hrp": PILConfig()})),
                note="windows with gaps take the pairwise path")]


def _alone(sessions: int, ours: Mapping[str, float], theirs: Sampled, fast: str | None, same: float) -> list[Row]:
    """Equal work: rolling sample covariance, HRP with leaf ordering, return of the next session."""
    out = []
    best = "HRP alone, batched, numba" if fast else "HRP alone, batched"
    for name, spent in ours.items():
        for peer, s in theirs.fit.items():
            least = None
            for who, direct, quick in (("skfolio cross", 60.0, 1500.0), ("riskfolio", 120.0, 3000.0)):
                if peer.startswith(who):
                    least = direct if name.endswith("session") else quick if name == best else None
            ratio, far = s * sessions / spent, theirs.apart.get(peer)
            note = f"peers timed on {theirs.sample - 1} sessions or more spread over the period and multiplied up"
            if "batched" in name:
                note += f"; portfolio returns equal those of single calls to {same:.0e}"
            right = not peer.startswith("riskfolio") or not (far or 0.0) > 1e-12
            out.append(Row(job="walk-forward, HRP alone", case=f"{sessions:,} sessions, K=8, {name[11:]}", ours_s=spent,
                           peer=peer, peer_s=s * sessions, difference=far, compares="HRP weights on the sampled windows",
                           note=missed(note, ratio, least or 0.0, "covariances and trees share the batched time"
                                       if "batched" in name else "each call has its own overhead"),
                           **goal_of(ratio, least, right)))
    return out


def _layer(sessions: int, ours: float, theirs: Sampled) -> list[Row]:
    """Our whole layer against their HRP alone: more work on our side."""
    note = "ours: estimates, all stages, costs, full result tables; peers: HRP alone"
    return [Row(job="walk-forward, whole layer", case=f"{sessions:,} sessions, K=8 M=50", ours_s=ours, peer=n,
                peer_s=s * sessions, difference=theirs.apart.get(n), compares="HRP weights on the sampled windows",
                note=missed(note, s * sessions / ours, 10.0 if "cross" in n else 0.0, "ours decides whole books"),
                **goal_of(s * sessions / ours, 10.0 if "cross" in n else None)) for n, s in theirs.fit.items()]


def _equal(sessions: int, panel: Panel, sleeves: np.ndarray, rounds: int) -> list[Row]:
    """1/N: the whole layer beside bt, which holds the sleeves themselves."""
    run = peers.bt_equal()
    config = {"equal": PILConfig().replace(**{"allocation.method": "equal"})}
    case, job = f"{sessions:,} sessions, K=8 M=50, 1/N", "walk-forward, whole layer"
    if run is None:
        return [absent(job, case, seconds(lambda: walk(panel, config)), "bt, 1/N daily")]
    took = alternate({"ours": lambda: walk(panel, config), "bt": lambda: run(sleeves[WARM_UP:])}, rounds)
    return [Row(job=job, case=case, ours_s=took["ours"], peer="bt, 1/N daily", peer_s=took["bt"],
                note="bt rebalances the sleeves as if they were funds; ours nets, targets and caps their positions")]


def hundred() -> dict[str, PILConfig]:
    """100 configurations that share estimates: 5 smoothings x 5 bands x 4 volatility targets."""
    grid = itertools.product((0.5, 0.65, 0.8, 0.9, 0.95), (0.0025, 0.005, 0.0075, 0.01, 0.015), (0.06, 0.08, 0.1, 0.12))
    return {f"{s}|{b}|{v}": PILConfig().replace(**{"allocation.smoothing": s, "turnover.band": b, "vol_target.target": v})
            for s, b, v in grid}


def configurations(effort: Effort) -> list[Row]:
    """The time of 100 configurations over the time of one."""
    sessions, rounds = effort.pick((5, 1), (252, 1), (SESSIONS, 3))
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
            Row(job="configurations", case=f"{base}: 100", ours_s=hundred_s, goal="< 3x one",
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


def thousand(effort: Effort) -> list[Row]:
    """1,000 configurations on 24 distinct base-weight sets beside one HRP walk-forward of skfolio, which has no book at all."""
    count, sessions, sample = effort.pick((8, 5, 20), (1000, 126, 40), (1000, SESSIONS, 200))
    panel, whole, found = panel_of(sessions, 0.0), peers.skfolio_walk(), engines()
    sleeves = sleeve_returns(panel)
    starts = np.linspace(min(WARM_UP, len(sleeves) - 20), len(sleeves) - 20, sample // 20).astype(int)
    configs, times, returns, theirs = grid(count), {}, {}, 0.0
    for i, name in enumerate(found):
        def run(name: str = name) -> None:
            returns[name] = walk(panel, configs, ("returns",)).returns.to_numpy()

        times[name] = seconds(on(name, run))
        if whole is not None:  # pieces of 20 consecutive sessions, a part of them after each of our runs
            theirs += sum(seconds(lambda e=e: whole(sleeves[e - WINDOW:e + 20], WINDOW)) for e in starts[i::len(found)])
    accel.use(False)
    pieces = sum(len(starts[i::len(found)]) for i in range(len(found)))
    case, out = f"{count:,} configurations, {sessions:,} sessions", []
    for name, spent in times.items():
        least, each = 1.0 if name == NUMPY else 10.0, spent / count / sessions * 1e6
        note = f"24 base-weight sets, K=8, M=50; {each:.1f} µs a configuration and session, estimates included; "
        if whole is None:
            out.append(absent("grid", f"{case}, {name.split()[0]}", spent, "skfolio cross_val_predict, once", f">= {least:g}x"))
            continue
        one = theirs / (20 * pieces) * sessions
        note += f"skfolio timed on {20 * pieces} sessions and multiplied up"
        out.append(Row(job="grid", case=f"{case}, {name.split()[0]}", ours_s=spent, peer="skfolio cross_val_predict, once",
                       peer_s=one, difference=gap(returns[name], returns[NUMPY]),
                       compares="daily net returns, on this engine against numpy",
                       note=missed(note, one / spent, least, "stages, bands and costs of every book are numpy on either engine; "
                                   "allocators, which numba speeds up, run 24 times and not 1,000"),
                       **goal_of(one / spent, least)))
    return out
