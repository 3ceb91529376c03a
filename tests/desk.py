"""A small account on real exchange sessions, for the tests of the live path."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from books import CAPPED

from pil_research.config import PILConfig
from pil_research.estimate import History
from pil_research.integrator import PortfolioIntegrator
from pil_research.live import LiveSession, SessionLimits, SlotCalendar, SlotDecision, StateStore
from pil_research.types import Decision, Sleeve, Snapshot

NAMES, IDS = [f"S{i:02d}" for i in range(8)], ["carry", "macro", "trend"]
DAILY = CAPPED.replace(**{"schedule.slots": ["15:30"], "sizing.kelly": 0.5})
FOUR = CAPPED.replace(**{"sizing.kelly": 0.5})
LIMITS = SessionLimits(added_name=0.5, added_decision=3.0, added_session=6.0)
CALENDARS = {c.schedule: SlotCalendar(config=c.schedule) for c in (DAILY, FOUR)}
_ALL = CALENDARS[FOUR.schedule].sessions
DAYS = _ALL[(_ALL >= "2024-01-02") & (_ALL < "2027-06-01")]
_RNG = np.random.default_rng(11)
RETURNS = pd.DataFrame(0.01 * (0.4 * _RNG.standard_normal((len(DAYS), 1)) + _RNG.standard_normal((len(DAYS), 8))),
                       index=DAYS, columns=NAMES)
TARGETS = {i: pd.DataFrame(_RNG.standard_normal((len(DAYS), 8)), index=DAYS, columns=NAMES).ewm(30).mean() for i in IDS}
PRICES = 100.0 * (1.0 + RETURNS).cumprod()
INFO = pd.DataFrame({"asset_class": ["Equities", "Metals"] * 4, "kind": "future", "half_spread_bps": 1.0, "fee_bps": 0.2,
                     "adv_usd": 1e9}, index=NAMES)
_STACK = np.ascontiguousarray(np.stack([TARGETS[i].to_numpy() for i in IDS], axis=1))


def history(rows: int) -> History:
    """The first rows as an aligned history."""
    return History(NAMES, IDS, RETURNS.to_numpy()[:rows], _STACK[:rows], DAYS.to_numpy()[:rows].astype("datetime64[D]"))


@dataclass
class Desk:
    """A daemon of a few lines: asks the session, fills every order at once, marks to market."""

    path: Path
    config: PILConfig = DAILY
    limits: SessionLimits = LIMITS
    kill_file: Path | None = None
    equity: float = 5e6
    frames: bool = False
    positions: pd.Series = field(default_factory=lambda: pd.Series(0.0, index=NAMES))
    fresh: bool = False

    def __post_init__(self) -> None:
        self.calendar, self._history = CALENDARS[self.config.schedule], None
        self.start()

    def start(self) -> LiveSession:
        """What a process does when it begins, first start or not."""
        self.store = StateStore(self.path, fresh=self.fresh)
        self.session = LiveSession(self.store, PortfolioIntegrator(self.config), self.calendar, limits=self.limits,
                                   kill_file=self.kill_file)
        return self.session

    def restart(self) -> LiveSession:
        """A new process on the same store: nothing is kept in memory."""
        self.store.close()
        self._history = None
        return self.start()

    def returns(self, row: int) -> Any:
        if self.frames:
            return RETURNS.iloc[:row]
        if self._history is None or self._history.n > row:
            self._history = history(row)
        for i in range(self._history.n, row):
            self._history.append(DAYS[i].to_datetime64().astype("datetime64[D]"), RETURNS.to_numpy()[i], _STACK[i])
        return self._history

    def snapshot(self, row: int, slot: str = "15:30", **changes: Any) -> Snapshot:
        """The snapshot of a slot of the session at `row`, on time."""
        at = next((s.at for s in self.calendar.slots(DAYS[row]) if s.name == slot), None)
        if at is None:
            at = DAYS[row].tz_localize(self.calendar.zone) + pd.Timedelta(hours=11)
        sleeves = tuple(Sleeve(id=i, weights=TARGETS[i].iloc[row - 1], history=TARGETS[i].iloc[:row] if self.frames else None)
                        for i in IDS)
        made = Snapshot(session=DAYS[row], slot=slot, decided_at=at, asset_returns=self.returns(row), sleeves=sleeves,
                        equity=self.equity, prices=PRICES.iloc[row - 1], positions=self.positions, instruments=INFO)
        return replace(made, **changes)

    def fill(self, d: Decision, share: float = 1.0) -> None:
        """Fill a share of every order."""
        for o in d.orders:
            q = o.quantity if o.side == "buy" else -o.quantity
            self.positions = self.positions.copy()
            self.positions[o.vehicle] += share * q
            if abs(self.positions[o.vehicle]) < 1e-9:
                self.positions[o.vehicle] = 0.0

    def run(self, first: int, last: int, slot: str = "15:30") -> SlotDecision:
        """Ordinary sessions, the last one included."""
        for row in range(first, last + 1):
            d = self.session.on_slot(self.snapshot(row, slot))
            self.fill(d)
        return d


def codes(d: SlotDecision) -> list[str]:
    """Reason codes of a decision."""
    return [str(r.code) for r in d.reasons]


def gross(d: Decision) -> float:
    return float(d.exposures.abs().sum())


def adds(d: Decision, name: str | None = None) -> float:
    """Exposure a decision adds, in one name or in all."""
    now = d.exposures - d.trades
    both = pd.concat([now, d.exposures], axis=1)
    grown = both.apply(lambda r: abs(r.iloc[1]) if r.iloc[0] * r.iloc[1] < 0 else max(abs(r.iloc[1]) - abs(r.iloc[0]), 0.0),
                       axis=1)
    return float(grown.sum() if name is None else grown[name])
