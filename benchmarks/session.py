"""One live slot, from the snapshot to the row on disk, over a desk's day; and the first one of a fresh interpreter."""
from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from harness import Effort, Row, child, gap
from live import BARS, Feed

from pil_research.config import PILConfig
from pil_research.integrator import PortfolioIntegrator
from pil_research.live import LiveSession, SessionLimits, SlotCalendar, StateStore

SLOT, START = 5e-3, 1.5  # s
WIDE = SessionLimits(added_name=0.5, added_decision=3.0, added_session=6.0)  # drawn targets turn over faster than a desk's
COLD = """
import json, sys, tempfile, time
began = time.perf_counter()
from pil_research.config import PILConfig
from pil_research.integrator import PortfolioIntegrator
from pil_research.live import LiveSession, SlotCalendar, StateStore
loaded = time.perf_counter() - began
import session
desk = session.Desk.of(int(sys.argv[1]), int(sys.argv[2]), 1)
snapshot = desk.first(frames=True)
began = time.perf_counter()
with tempfile.TemporaryDirectory() as folder, StateStore(folder + "/store.sqlite") as store:
    decision = LiveSession(store, PortfolioIntegrator(PILConfig()), SlotCalendar()).on_slot(snapshot)
    print(json.dumps({"s": loaded + time.perf_counter() - began, "loaded": loaded, "ok": decision.status == "ok"}))
"""


@dataclass(frozen=True)
class Desk:
    """A drawn feed on the sessions of a real calendar."""

    feed: Feed
    calendar: SlotCalendar

    @classmethod
    def of(cls, k: int, m: int, days: int) -> Desk:
        """K sleeves, M symbols, `days` sessions after the history."""
        feed, calendar = Feed(k, m, days + 1), SlotCalendar()
        begin = calendar.sessions.searchsorted(pd.Timestamp("2018-01-02"))
        feed.dates = calendar.sessions[begin:begin + BARS + days + 1].to_numpy().astype("datetime64[D]")
        return cls(feed, calendar)

    def first(self, frames: bool) -> object:
        """The snapshot of the first slot after the history."""
        flat, slot = pd.Series(0.0, index=self.feed.index), self.calendar.slots(pd.Timestamp(self.feed.dates[BARS]))[0]
        given = self.feed.frames(BARS) if frames else {"asset_returns": self.feed.history(BARS), "sleeves": None}
        return self.feed.snapshot(BARS, flat, given["asset_returns"], given["sleeves"], slot=slot.name, at=slot.at)


@dataclass(frozen=True)
class Day:
    """Seconds of every slot (session, slot of the session), orders a slot, and the first exposures."""

    spent: np.ndarray
    orders: float
    first: pd.Series


def slots_of(desk: Desk, days: int, config: PILConfig, equity: float) -> Day:
    """Every slot of `days` sessions, each session's bar appended after its last one."""
    feed, spent, orders, first = desk.feed, [], 0, pd.Series(dtype=float)
    history, positions = feed.history(BARS), pd.Series(0.0, index=feed.index)
    with tempfile.TemporaryDirectory() as folder, StateStore(Path(folder) / "store.sqlite") as store:
        pil = LiveSession(store, PortfolioIntegrator(config), desk.calendar, limits=WIDE)
        for i in range(days):
            t, today = BARS + i, []
            for slot in desk.calendar.slots(pd.Timestamp(feed.dates[t])):
                snapshot = feed.snapshot(t, positions, history, slot=slot.name, at=slot.at, equity=equity)
                began = time.perf_counter()
                decision = pil.on_slot(snapshot)
                exposures = decision.exposures
                today.append(time.perf_counter() - began)
                if decision.status != "ok":
                    raise RuntimeError(f"{feed.dates[t]} {slot.name}: {decision.status} {decision.alarms}")
                positions, orders, first = decision.notionals, orders + len(decision.orders), exposures if not spent else first
            spent.append(today)
            history.append(feed.dates[t], feed.returns[t], feed.targets[t])
    return Day(np.array(spent[1:] or spent), orders / sum(map(len, spent)), first)


def live_slot(effort: Effort) -> list[Row]:
    """K = 12, M = 200, with few orders and with many; then a start."""
    k, m = effort.pick((3, 8), (12, 200), (12, 200))
    days, out = effort.pick(2, 15, 60), []
    for case, change, equity in (("default settings", {}, 5e6), ("no cost gate, larger account", {"turnover.gate": False}, 5e7)):
        desk, config = Desk.of(k, m, days), PILConfig().replace(**change)
        got = slots_of(desk, days, config, equity)
        plain = PortfolioIntegrator(config).build_target_book(desk.feed.snapshot(
            BARS, pd.Series(0.0, index=desk.feed.index), desk.feed.history(BARS), equity=equity)).exposures
        median, by_slot = float(np.median(got.spent)), np.median(got.spent, axis=0) * 1e3
        note = (f"90th percentile {np.quantile(got.spent, 0.9) * 1e3:.2f} ms of {got.spent.size} slots; medians by slot of the "
                f"session {', '.join(f'{x:.2f}' for x in by_slot)} ms; {got.orders:.1f} orders a slot")
        if median >= SLOT:
            note += f"; missed by a factor of {median / SLOT:.2f}: the decision is most of it, writing and syncing the rest"
        out.append(Row(job="live slot", case=f"K={k} M={m}, {got.spent.shape[1]} slots a session, durable, {case}", ours_s=median,
                       goal=f"< {SLOT * 1e3:g} ms", met=median < SLOT, note=note, difference=gap(plain, got.first),
                       compares="exposures of the first slot, beside build_target_book alone"))
    return [*out, _start(k, m, effort.pick(1, 3, 9))]


def _start(k: int, m: int, rounds: int) -> Row:
    """From the first import to a committed decision, in fresh interpreters."""
    found = [child(COLD, k, m) for _ in range(rounds + 1)][1:]  # the first one fills the disk cache
    took, loaded = (statistics.median(x[name] for x in found) for name in ("s", "loaded"))
    if not all(x["ok"] for x in found):
        raise RuntimeError("a first decision was not ok")
    note = f"median of {rounds} fresh interpreters; {BARS} bars given as pandas frames; imports are {loaded:.2f} s of it"
    if took >= START:
        note += f"; missed by a factor of {took / START:.2f}: imports lead it"
    return Row(job="live start", case=f"K={k} M={m}, import to first committed decision", ours_s=took, goal=f"< {START:g} s",
               met=took < START, note=note)
