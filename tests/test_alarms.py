"""Every alarm code is raised by something, and the watch alarms fire on what they name."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pil_research.config import PILConfig
from pil_research.integrator import PortfolioIntegrator
from pil_research.reading import bar_age, is_stale
from pil_research.research.data import Panel, synthetic_panel
from pil_research.research.walk_forward import snapshot_at
from pil_research.types import AlarmCode, Decision, Snapshot

SOURCES = [p for p in (Path(__file__).resolve().parent.parent / "pil_research").rglob("*.py") if p.name != "types.py"]


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel(3, n_sleeves=3, n_symbols=8, n_days=500, staggered=False, missing=0.0)


def codes(decision: Decision) -> dict[AlarmCode, str]:
    return {a.code: a.subject for a in decision.alarms}


def after_one(panel: Panel, **changes: object) -> dict[AlarmCode, str]:
    """Alarms of the second of two sessions, whose snapshot is changed."""
    live = PortfolioIntegrator(PILConfig())
    day, then = panel.dates[400], panel.dates[401]
    first = live.build_target_book(snapshot_at(panel, day, equity=5e6))
    snap: Snapshot = snapshot_at(panel, then, equity=5e6, positions=first.notionals)
    return codes(live.build_target_book(replace(snap, **changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize("code", list(AlarmCode), ids=str)
def test_every_code_is_used_somewhere(code: AlarmCode) -> None:
    pattern = (f"AlarmCode.{code.name}", f"c.{code.name}")
    assert any(p in text for text in (s.read_text(encoding="utf-8") for s in SOURCES) for p in pattern)


def test_a_quiet_day_raises_none_of_the_watch_alarms(panel: Panel) -> None:
    watch = {AlarmCode.EQUITY_JUMP, AlarmCode.STALE_INPUT, AlarmCode.RETURN_OUTLIER, AlarmCode.VANISHED_SYMBOL}
    assert not watch & set(after_one(panel))


@pytest.mark.parametrize(("equity", "flow", "fires"), [(7e6, 0.0, True), (7e6, 2e6, False), (5.5e6, 0.0, False)])
def test_equity_that_jumps_without_a_flow(panel: Panel, equity: float, flow: float, fires: bool) -> None:
    assert (AlarmCode.EQUITY_JUMP in after_one(panel, equity=equity, flows=flow)) is fires


def late_by(panel: Panel, days: int, bars: slice = slice(None, 401)) -> tuple[Decision, Decision]:
    """Two decisions, the second some days after its last bar."""
    live = PortfolioIntegrator(PILConfig())
    first = live.build_target_book(snapshot_at(panel, panel.dates[400], equity=5e6))
    late = panel.dates[400] + pd.Timedelta(days=days)
    snap = snapshot_at(panel, panel.dates[401], equity=5e6, positions=first.notionals)
    sleeves = tuple(replace(s, weights=-s.weights) for s in snap.sleeves or () if s.weights is not None)
    return first, live.build_target_book(replace(
        snap, session=late, decided_at=late.tz_localize("UTC") + pd.Timedelta(hours=20), sleeves=sleeves,
        asset_returns=panel.returns.iloc[bars]))


@pytest.mark.parametrize(("days", "stale"), [(1, False), (7, False), (8, True), (21, True)])
def test_bars_that_stopped_coming_hold_the_book(panel: Panel, days: int, stale: bool) -> None:
    """Every sleeve turns round, but on old bars nothing is opened and no sleeve weight moves."""
    first, second = late_by(panel, days)
    alarms = {a.code: a for a in second.alarms}
    assert (AlarmCode.STALE_INPUT in alarms) is stale and second.exposures.abs().sum() > 0.0
    turned = (second.exposures * first.exposures < 0.0).any()
    if not stale:
        assert turned
        return
    alarm = alarms[AlarmCode.STALE_INPUT]
    assert (alarm.severity, alarm.subject, alarm.value, alarm.limit) == ("critical", "asset_returns", days, 7)
    assert not turned and (second.exposures.abs() <= first.exposures.abs() + 1e-12).all()
    assert (second.sleeve_weights == first.sleeve_weights).all()


@pytest.mark.parametrize(("every", "age", "limit"), [("B", 8, 7), ("W-WED", 34, 35), ("MS", 100, 155)])
def test_the_age_of_bars_scales_with_their_length(every: str, age: int, limit: int) -> None:
    dates = pd.date_range("2020-01-01", periods=80, freq=every).to_numpy().astype("datetime64[D]")
    for row in (1, 79):
        assert bar_age(dates, row, (dates[row] + np.timedelta64(age, "D")).astype("datetime64[ns]")) == (age, limit)
        for days, stale in ((limit, False), (limit + 1, True)):
            assert is_stale(dates, row, dates[row] + np.timedelta64(days, "D")) is stale


def test_a_return_beyond_ten_deviations_names_its_symbol(panel: Panel) -> None:
    returns = panel.returns.iloc[:401].copy()
    returns.iloc[-1, 2] = 0.9
    assert after_one(panel, asset_returns=returns)[AlarmCode.RETURN_OUTLIER] == panel.symbols[2]


def test_a_position_that_no_sleeve_wants(panel: Panel) -> None:
    symbol = panel.symbols[4]
    live = PortfolioIntegrator(PILConfig())
    snap = snapshot_at(panel, panel.dates[400], equity=5e6, positions=pd.Series({symbol: 1e5}))
    sleeves = tuple(replace(s, weights=s.weights.drop(symbol), history=s.history.drop(columns=symbol))
                    for s in snap.sleeves or () if s.weights is not None and s.history is not None)
    decision = live.build_target_book(replace(snap, sleeves=sleeves))
    assert codes(decision)[AlarmCode.VANISHED_SYMBOL] == symbol
    assert decision.exposures[symbol] == 0.0 and np.isclose(decision.trades[symbol], -0.02)
