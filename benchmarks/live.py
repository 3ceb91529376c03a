"""One live decision: `build_target_book` warm, the day's bar appended, against pandas frames aligned anew."""
from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd
from harness import Effort, Row, gap, seconds

from pil_research.config import PILConfig
from pil_research.estimate import History
from pil_research.integrator import PortfolioIntegrator, history_from_frames
from pil_research.types import Decision, Sleeve, Snapshot

BARS = 800  # of history before the first decision


class Feed:
    """Drawn returns (one common factor) and weekly targets, as arrays and as frames."""

    def __init__(self, k: int, m: int, days: int, bars: int = BARS) -> None:
        rng, n = np.random.default_rng(0), bars + days
        self.bars = bars
        self.symbols, self.ids = [f"S{i:04d}" for i in range(m)], [f"s{i:02d}" for i in range(k)]
        self.returns = 0.01 * (rng.standard_normal((n, m)) + 0.3 * rng.standard_normal((n, 1)))
        self.targets = np.repeat(rng.standard_normal((n // 5 + 1, k, m)), 5, axis=0)[:n]
        self.dates = np.busday_offset(np.datetime64("2018-01-01"), np.arange(n), roll="forward")
        self.index = pd.Index(self.symbols, dtype=object, name="symbol")
        self.instruments = pd.DataFrame({"asset_class": [f"c{i % 6}" for i in range(m)], "adv_usd": 1e9,
                                         "half_spread_bps": 2.0}, index=self.index)

    def history(self, t: int) -> History:
        """Everything before row `t`, aligned."""
        return History(self.symbols, self.ids, self.returns[:t], self.targets[:t], self.dates[:t])

    def frames(self, t: int) -> dict[str, Any]:
        """The same as pandas frames."""
        days = pd.DatetimeIndex(self.dates[:t])
        sleeves = tuple(Sleeve(id=name, weights=pd.Series(self.targets[t - 1, k], index=self.index),
                               history=pd.DataFrame(self.targets[:t, k], index=days, columns=self.index))
                        for k, name in enumerate(self.ids))
        return {"asset_returns": pd.DataFrame(self.returns[:t], index=days, columns=self.index), "sleeves": sleeves}

    def snapshot(self, t: int, positions: pd.Series, history: Any, sleeves: tuple[Sleeve, ...] | None = None, *,
                 slot: str = "15:30", at: pd.Timestamp | None = None, equity: float = 5e6) -> Snapshot:
        """The snapshot of a slot of session `t`."""
        day = pd.Timestamp(self.dates[t])
        now = sleeves or tuple(Sleeve(id=name, weights=pd.Series(self.targets[t - 1, k], index=self.index))
                               for k, name in enumerate(self.ids))
        return Snapshot(session=day, slot=slot, decided_at=at or day.tz_localize("UTC") + pd.Timedelta(hours=20),
                        asset_returns=history, sleeves=now, equity=equity, positions=positions, instruments=self.instruments)


@dataclass(frozen=True)
class Warm:
    """Seconds of warm sessions: decision with its exposures read, `History.append`, and reading all the rest of it."""

    median: float
    appending: float  # median
    slow: float  # 90th percentile
    opening: float  # the first one
    reading: float  # median
    exposures: pd.Series  # of the first one


def read_all(decision: Decision) -> None:
    """Every label, order, record and alarm, which are made when first read."""
    for f in fields(decision):
        getattr(decision, f.name)


def warm(feed: Feed, days: int, skip: int) -> Warm:
    """Decide `days` sessions one after the other, the bar of each appended after it."""
    pil, history = PortfolioIntegrator(PILConfig()), feed.history(feed.bars)
    spent: list[float] = []
    appending: list[float] = []
    reading: list[float] = []
    positions, first = pd.Series(0.0, index=feed.index), pd.Series(dtype=float)
    for i in range(days):
        t = feed.bars + i
        snapshot = feed.snapshot(t, positions, history)
        began = time.perf_counter()
        decision = pil.build_target_book(snapshot)
        exposures = decision.exposures
        spent.append(time.perf_counter() - began)
        appending.append(seconds(lambda t=t: history.append(feed.dates[t], feed.returns[t], feed.targets[t])))
        reading.append(seconds(lambda d=decision: read_all(d)))
        positions, first = decision.notionals, exposures if i == 0 else first
    late = spent[skip:]
    return Warm(statistics.median(late), statistics.median(appending[skip:]), float(np.quantile(late, 0.9)), spent[0],
                statistics.median(reading[skip:]), first)


def live_step(effort: Effort) -> list[Row]:
    """K = 12 with 50 and with 3,000 symbols."""
    rows = []
    sizes = effort.pick(((8, 3, 6e-4),), ((50, 60, 6e-4), (3000, 15, 10e-3)), ((50, 300, 6e-4), (3000, 60, 10e-3)))
    for m, days, limit in sizes:
        feed = Feed(effort.pick(3, 12, 12), m, days + 1)
        ours = warm(feed, days, skip=effort.pick(1, 5, 20))
        frames = feed.frames(BARS)
        began = time.perf_counter()
        history_from_frames(frames["asset_returns"], frames["sleeves"], pd.Timestamp(feed.dates[BARS]), feed.symbols)
        align = time.perf_counter() - began
        flat = pd.Series(0.0, index=feed.index)
        cold = PortfolioIntegrator(PILConfig()).build_target_book(
            feed.snapshot(BARS, flat, frames["asset_returns"], frames["sleeves"]))
        case, met = f"K={len(feed.ids)} M={m:,}", ours.median < limit
        note = f"90th percentile {ours.slow * 1e3:.2f} ms over {days} sessions; checks, sizes, exposures; other labels when read"
        if not met:
            note += f"; missed by a factor of {ours.median / limit:.2f}: " + (
                "the time is the number of small numpy and pandas calls, not arithmetic" if m <= 50 else
                "rank correlations of the skill scores, the window's volatility and the hash of the inputs lead it")
        rows += [Row(job="live decision", case=f"{case}, build_target_book, warm", ours_s=ours.median, met=met, note=note,
                     goal=f"< {limit * 1e3:g} ms", difference=gap(cold.exposures, ours.exposures),
                     compares="exposures of the first session, aligned history against pandas frames"),
                 Row(job="live decision", case=f"{case}, the day's bar appended", ours_s=ours.appending),
                 Row(job="live decision", case=f"{case}, every label of it read", ours_s=ours.reading,
                     note="orders, records, alarms and the other tables are made when first read"),
                 Row(job="live decision", case=f"{case}, first decision on {BARS} aligned bars", ours_s=ours.opening,
                     note="estimates of the whole history are made here, once"),
                 Row(job="live decision", case=f"{case}, align {BARS} bars from frames", ours_s=align,
                     note="once at start-up, or when symbols or sleeves change")]
    return rows


def growth_in_symbols(effort: Effort) -> tuple[str, list[int], dict[int, float]]:
    """Seconds of a warm decision by number of symbols."""
    sizes = effort.pick([4, 8, 16, 32, 64], [188, 375, 750, 1500, 3000], [188, 375, 750, 1500, 3000])
    days, k = effort.pick((3, 3), (10, 5), (25, 12))
    took = {m: warm(Feed(k, m, days + 1, bars=400), days, skip=2).median for m in sizes}
    return f"live decision, K={k}, warm", sizes, took
