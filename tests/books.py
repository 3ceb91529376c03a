"""Small panels and snapshots that the tests of whole decisions share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd

from pil_research.config import PILConfig
from pil_research.integrator import PortfolioIntegrator
from pil_research.research.panel import Panel
from pil_research.research.panel_frames import panel_from_frames
from pil_research.research.walk_forward import snapshot_at
from pil_research.types import Decision, Snapshot

FAST = PILConfig().replace(
    **{
        "covariance.window": 120,
        "covariance.min_overlap": 30,
        "sleeves.vol_window": 120,
        "sleeves.min_observations": 30,
        "tilt.window": 126,
        "risk.window": 60,
    }
)
CAPPED, FAST = (
    FAST,
    FAST.replace(
        **{"caps.name": 0.8, "caps.cluster": 1.6, "caps.net": 1.6, "ladder.name": [0.8] * 4, "ladder.gross": [2.0] * 4}
    ),
)  # FAST leaves room; CAPPED has the caps of SPEC


def small_panel(
    seed: int = 0,
    k: int = 4,
    m: int = 8,
    t: int = 200,
    *,
    missing: float = 0.0,
    memory: float = 0.95,
    regime: bool = False,
    **sleeve_facts: Any,
) -> Panel:
    """Random returns and slowly moving targets; two asset classes; roles in turn."""
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2020-01-01", periods=t, name="date")
    symbols, ids = [f"S{i:02d}" for i in range(m)], [f"sleeve_{chr(97 + i)}" for i in range(k)]
    common = rng.standard_normal((t, 1))
    returns = 0.01 * (0.4 * common + rng.standard_normal((t, m))) * np.linspace(0.6, 1.6, m)
    returns[rng.random(returns.shape) < missing] = np.nan
    signal = np.empty((t, k, m))
    state = rng.standard_normal((k, m))
    for i in range(t):
        state = memory * state + np.sqrt(1.0 - memory**2) * rng.standard_normal((k, m))
        signal[i] = state
    frame = pd.DataFrame(returns, index=days, columns=symbols)
    targets = {s: pd.DataFrame(signal[:, j], index=days, columns=symbols) for j, s in enumerate(ids)}
    info = pd.DataFrame(
        {
            "asset_class": ["Equities" if i % 2 else "Metals" for i in range(m)],
            "kind": "future",
            "half_spread_bps": 1.0,
            "fee_bps": 0.2,
            "adv_usd": 1e9,
        },
        index=symbols,
    )
    roles = ["defensive", "cyclical", "neutral"]
    sleeves = pd.DataFrame({"role": [roles[j % 3] for j in range(k)]}, index=ids)
    for name, values in sleeve_facts.items():
        sleeves[name] = [values.get(s) for s in ids]
    reads = None
    if regime:
        label = np.array(["risk_on", "transition", "crisis"])[np.arange(t) // 25 % 3]
        reads = pd.DataFrame({"label": label, "confidence": rng.random(t)}, index=days)
    return panel_from_frames(frame, targets, info, sleeves=sleeves, regime=reads)


def snapshot(panel: Panel, row: int, **changes: Any) -> Snapshot:
    """The 15:30 snapshot of the panel's session at `row`, 5 million of equity, nothing held, with changes."""
    keys = {k: changes.pop(k) for k in ("equity", "positions", "slot", "history", "flows") if k in changes}
    made = snapshot_at(panel, panel.dates[row], **{"equity": 5e6, **keys})
    return replace(made, **changes)


def with_closure(panel: Panel, cut: pd.Timestamp) -> Panel:
    """The panel as if the market had been closed for a fortnight before the session `cut`."""
    days = panel.dates + pd.to_timedelta(np.where(panel.dates >= cut, 14, 0), unit="D")

    def moved(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.set_axis(pd.DatetimeIndex(days, name=frame.index.name), axis=0)

    return replace(panel, returns=moved(panel.returns), targets={k: moved(v) for k, v in panel.targets.items()},
                   prices=None if panel.prices is None else moved(panel.prices),
                   regime=None if panel.regime is None else moved(panel.regime))


def without(made: Snapshot, *ids: str) -> Snapshot:
    """The snapshot with the targets of some sleeves missing today: no weights, no row of yesterday."""

    def blank(s: Any) -> Any:
        if s.id not in ids:
            return s
        history = s.history.copy()
        history.iloc[-1] = np.nan
        return replace(s, weights=None, history=history)

    return replace(made, sleeves=tuple(blank(s) for s in made.sleeves or ()))


@dataclass
class Live:
    """An account that follows the integrator's book from session to session."""

    panel: Panel
    config: PILConfig = FAST
    equity: float = 5e6
    integrator: PortfolioIntegrator = field(init=False)
    positions: pd.Series = field(init=False)
    decisions: list[Decision] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.integrator = PortfolioIntegrator(self.config)
        self.positions = pd.Series(0.0, index=list(self.panel.symbols))

    def day(
        self, row: int, change: Callable[[Snapshot], Snapshot] | None = None, earn: bool = True, **keys: Any
    ) -> Decision:
        """Decide for the session at `row`, trade without costs and earn its bar."""
        made = snapshot(self.panel, row, **{"equity": self.equity, "positions": self.positions, **keys})
        decision = self.integrator.build_target_book(change(made) if change else made)
        if earn:
            ret = self.panel.returns.iloc[row].fillna(0.0).reindex(decision.exposures.index).fillna(0.0)
            self.positions = decision.exposures * decision.equity * (1.0 + ret)
            self.equity = self.equity * (1.0 + float(decision.exposures @ ret))
        self.decisions.append(decision)
        return decision

    def days(self, first: int, last: int) -> Decision:
        """Ordinary days, the last one included."""
        for row in range(first, last + 1):
            decision = self.day(row)
        return decision


def same(a: Decision, b: Decision) -> bool:
    """Bitwise equal decisions, input hashes included."""
    x, y = a.to_dict(), b.to_dict()
    return x == y and bool((a.exposures.to_numpy() == b.exposures.to_numpy()).all())


def codes(decision: Decision) -> set[str]:
    """Alarm codes of a decision."""
    return {str(a.code) for a in decision.alarms}


def gross(decision: Decision) -> float:
    """Gross exposure."""
    return float(decision.exposures.abs().sum())
