"""Thirty-three incidents that trading systems had, each as a test with its number: they must not happen here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import test_calendar
import test_session
import test_store
from books import CAPPED, FAST, Live, codes, gross, same, small_panel, snapshot
from desk import DAYS, Desk, adds
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.allocators import allocate_with_fallback, erc
from pil_research.config import PILConfig
from pil_research.estimators.sleeve_returns import sleeve_return_matrix
from pil_research.integrator import PortfolioIntegrator
from pil_research.live import SlotCalendar, StateStore
from pil_research.live.checks import SessionLimits, check_ages
from pil_research.stages.caps import cap_book
from pil_research.stages.turnover import control_turnover
from pil_research.types import BookState, ConfigError, InputError, PilError, StateError

PANEL, ROW = small_panel(21), 150
desk = test_session.desk  # an account on real exchange sessions
path = test_store.path  # the place of a store


def held_gross(live: Live) -> float:
    return float((live.positions / live.equity).abs().sum())


def after(days: int = 12, panel: Any = PANEL, config: PILConfig = FAST) -> Live:
    live = Live(panel, config)
    live.days(ROW - days, ROW - 1)
    return live


def test_incident_01_a_tick_of_yesterday(desk: Desk) -> None:
    """Each input one second over its limit: nothing is bought on it."""
    for name in ("prices", "positions"):
        made = desk.snapshot(desk_row(desk))
        old = made.decided_at - pd.Timedelta(seconds=getattr(desk.limits, f"age_{name}") + 1)
        aged = check_ages(made, {name: old}, SessionLimits())
        assert aged.hold and [str(r.code) for r in aged.reasons] == ["STALE"]


def desk_row(desk: Desk) -> int:
    """The next session of a desk."""
    return int(DAYS.get_loc(pd.Timestamp(desk.session.memory.session))) + 1 if desk.session.memory.session else 150


def test_incident_02_prices_filled_forward() -> None:
    """Unchanged bars in every symbol are a dead feed, not a calm one."""
    returns = PANEL.returns.copy()
    returns.iloc[ROW - 6 : ROW] = 0.0
    d = PortfolioIntegrator(FAST).build_target_book(snapshot(replace(PANEL, returns=returns), ROW))
    assert gross(d) == 0.0


def test_incident_03_a_stream_that_froze_while_connected() -> None:
    live = after()
    own = pd.Series(0.001, index=PANEL.dates[ROW - 6 : ROW])
    d = live.day(ROW, change=lambda s: replace(s, sleeves=(replace(s.sleeves[0], returns=own), *s.sleeves[1:])))
    assert "SLEEVE_QUARANTINED" in codes(d) and d.sleeve_weights["sleeve_a"] == 0.0


def test_incident_04_the_candle_that_is_still_open() -> None:
    base = PortfolioIntegrator(FAST).build_target_book(snapshot(PANEL, ROW))
    made = snapshot(PANEL, ROW)
    partial = pd.concat([made.asset_returns, PANEL.returns.iloc[ROW : ROW + 1] * 50.0])
    d = PortfolioIntegrator(FAST).build_target_book(replace(made, asset_returns=partial))
    assert (d.exposures == base.exposures).all() and "SAME_SESSION_PURGED" in codes(d)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_incident_05_nan_passes_le_zero(value: float) -> None:
    """NaN in every scalar, then a clean call: the second call is clean, and no limit was switched off."""
    want = after().day(ROW, earn=False)
    live = after()
    for field in ("equity", "flows"):
        copy = PortfolioIntegrator(FAST, live.integrator.state)
        try:
            d = copy.build_target_book(
                snapshot(PANEL, ROW, **{"equity": live.equity, "positions": live.positions, field: value})
            )
            assert gross(d) <= held_gross(live) + 1e-9
        except PilError as e:
            assert e.field == field
    for name in ("positions", "prices"):
        with pytest.raises(PilError):
            live.integrator.build_target_book(
                snapshot(
                    PANEL,
                    ROW,
                    equity=live.equity,
                    positions=live.positions * (value if name == "positions" else 1.0),
                    restricted=5 if name == "prices" else None,
                )
            )
    assert same(live.day(ROW, earn=False), want)


def test_incident_06_a_missing_price_is_no_zero_return() -> None:
    """Blanks never make a sleeve look calmer than it is."""
    rng = np.random.default_rng(0)
    returns, targets = 0.01 * rng.standard_normal((400, 4)), rng.standard_normal((400, 1, 4))
    full = sleeve_return_matrix(targets, returns).values[:, 0]
    for share in (0.05, 0.2, 0.5):
        holes = np.where(rng.random(returns.shape) < share, np.nan, returns)
        got = sleeve_return_matrix(targets, holes).values[:, 0]
        assert np.nanstd(got) > 0.85 * np.nanstd(full) and not (got == 0.0).any()


@pytest.mark.parametrize(
    "cov",
    [
        np.full((3, 3), np.nan),
        np.diag([1.0, np.nan, 1.0]),
        np.zeros((3, 3)),
        -np.eye(3),
        np.array([[1.0, np.inf], [np.inf, 1.0]]),
    ],
)
def test_incident_07_nan_weights_take_the_next_rung(cov: np.ndarray) -> None:
    weights, attempts = allocate_with_fallback(cov, "hrp")
    assert np.isfinite(weights).all() and weights.sum() == pytest.approx(1.0) and (weights >= 0.0).all() and attempts


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 1.0))
def test_incident_08_bounds_of_weights_hold(seed: int, name: float) -> None:
    rng = np.random.default_rng(seed)
    got = cap_book(rng.standard_normal(12), name=name, cluster=2.0, net=1.0, gross=2.0, clusters=np.arange(12) % 3).book
    assert np.abs(got).max() <= name + 1e-12 and np.abs(got).sum() <= 2.0 + 1e-9 and abs(got.sum()) <= 1.0 + 1e-9


def test_incident_09_equal_risk_with_unequal_variances() -> None:
    assert erc(np.diag([4.0, 9.0])) == pytest.approx([0.6, 0.4], abs=1e-10)
    rng = np.random.default_rng(1)
    for k in (2, 5, 9):
        a = rng.standard_normal((k, 3 * k)) * np.linspace(0.2, 4.0, k)[:, None]
        cov = a @ a.T
        w = erc(cov)
        shares = w * (cov @ w)
        assert np.ptp(shares / shares.sum()) < 1e-8


def turned(now: np.ndarray, goal: np.ndarray) -> np.ndarray:
    cov = np.diag(np.full(len(now), 1e-4))
    t = control_turnover(
        now[None],
        goal[None],
        variance=lambda w: np.einsum("...i,ij,...j->...", w, cov, w),
        costs=None,
        forced=np.array([False]),
        reduce_only=np.array([False]),
        cut=np.array([0.95]),
        raise_at=np.array([1.1]),
        band=np.array([0.0075]),
        relative=np.array([0.5]),
        min_ticket=np.array([0.001]),
        trade_to_edge=np.array([False]),
        haircut=np.array([0.5]),
        vol_base=np.array([0.1]),
        gate_sharpe=np.array([0.5]),
        horizon=np.array([20]),
        gate_enabled=np.array([False]),
        expected_gain=None,
    )
    return np.asarray(t.e_gate[0])


def test_incident_10_the_band_of_a_short() -> None:
    """f(-W) = -f(W) for a whole decision."""
    made = snapshot(PANEL, ROW)
    config = CAPPED.replace(**{"tilt.skill": False})
    mirrored = replace(made, sleeves=tuple(replace(s, weights=-s.weights, history=-s.history) for s in made.sleeves))
    held = pd.Series(np.linspace(-0.06, 0.08, 8) * 5e6, index=list(PANEL.symbols))
    a = PortfolioIntegrator(config).build_target_book(replace(made, positions=held))
    b = PortfolioIntegrator(config).build_target_book(replace(mirrored, positions=-held))
    assert np.allclose(a.exposures, -b.exposures, atol=1e-12)


def test_incident_11_long_to_short() -> None:
    """A flip goes through zero: under reduce-only it stops there, else it arrives."""
    base = PortfolioIntegrator(FAST).build_target_book(snapshot(PANEL, ROW)).exposures
    name = str(base.abs().idxmax())
    against = pd.Series({name: -np.sign(base[name]) * 0.05 * 5e6})
    d = PortfolioIntegrator(FAST).build_target_book(snapshot(PANEL, ROW, positions=against))
    assert d.exposures[name] * base[name] > 0.0
    d = PortfolioIntegrator(FAST).build_target_book(
        snapshot(PANEL, ROW, positions=against, restricted={name: "reduce_only"})
    )
    assert d.exposures[name] == 0.0


def test_incident_12_one_decision_however_often_asked(desk: Desk) -> None:
    row = desk_row(desk)
    made = desk.snapshot(row)
    first, rows = desk.session.on_slot(made), desk.store.seq
    for n in range(20):
        if n % 5 == 4:
            desk.restart()
        again = desk.session.on_slot(made)
        assert again.id == first.id and (again.exposures == first.exposures).all() and again.seq == first.seq
    assert desk.store.seq == rows == first.seq


test_incident_13_killed_at_every_step = test_store.test_kill_at_write_points_loses_nothing_acknowledged


def test_incident_14_a_lost_store_is_no_first_day(tmp_path: Path) -> None:
    lost = Desk(tmp_path / "a" / "book.db")
    lost.positions = pd.Series(1000.0, index=lost.positions.index)
    d = lost.session.on_slot(lost.snapshot(150))
    assert d.status in ("reduce", "halt") and adds(d) <= 1e-9 and "STATE_NEW" in [str(r.code) for r in d.reasons]
    lost.store.close()
    lost.path.unlink()
    with pytest.raises(StateError) as no:
        StateStore(lost.path)
    assert no.value.code == "MISSING"


def test_incident_15_a_restart_keeps_the_high_water_mark() -> None:
    live = after()
    mark = live.integrator.state.values["drawdown"]["mark"]
    live.equity *= 0.92
    one = live.day(ROW, earn=False)
    live2 = after()
    live2.equity *= 0.92
    live2.integrator = PortfolioIntegrator(
        FAST, BookState.from_dict(json.loads(json.dumps(live2.integrator.state.to_dict())))
    )
    two = live2.day(ROW, earn=False)
    assert one.haircuts == two.haircuts and one.numbers["drawdown"] == two.numbers["drawdown"] > 0.05
    assert live2.integrator.state.values["drawdown"]["mark"] == mark


def test_incident_16_flat_is_not_for_ever() -> None:
    """15 % down: flat for twenty sessions, then back at the floor."""
    live = Live(small_panel(21, t=240))
    live.days(130, 140)
    live.equity *= 0.84
    flat = [live.day(141 + n, earn=False) for n in range(21)]
    assert [d.haircuts["governor"] for d in flat[:20]] == [0.0] * 20
    assert flat[20].haircuts["governor"] == pytest.approx(FAST.governor.floor, abs=0.01)


@pytest.mark.parametrize("broken", ["align", "record", "build", "last line"])
def test_incident_17_a_kill_survives_any_crash(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    row = desk_row(desk)
    kill = tmp_path / "KILL"
    desk.session.kill_file = kill
    kill.write_text("")
    kill.chmod(0o600)

    def no(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    where = {
        "align": "pil_research.live.align.Aligner.align",
        "record": "pil_research.live.archive.Archive.record",
        "build": "pil_research.integrator.PortfolioIntegrator.build_target_book",
        "last line": "pil_research.live.session.check_last_line",
    }[broken]
    monkeypatch.setattr(where, no)
    d = desk.session.on_slot(desk.snapshot(row))
    assert d.status == "flat" and gross(d) == 0.0


@pytest.mark.parametrize(
    ("key", "percent"),
    [
        ("caps.name", 15.0),
        ("governor.start", 5.0),
        ("vol_target.target", 10.0),
        ("kill_tiers.daily_loss", 3.0),
        ("governor.flat_at", 15.0),
    ],
)
def test_incident_18_percent_for_fractions(key: str, percent: float) -> None:
    with pytest.raises(ConfigError, match="0.10, not 10") as no:
        PILConfig().replace(**{key: percent})
    assert no.value.field == key


def test_incident_19_a_losing_first_day_counts() -> None:
    live = Live(PANEL)
    live.day(ROW, earn=False)
    live.equity *= 0.93
    d = live.day(ROW + 1, earn=False)
    assert d.numbers["drawdown"] == pytest.approx(0.07) and d.haircuts["governor"] < 1.0


@pytest.mark.parametrize("share", [-0.5, 0.5])
def test_incident_20_deposits_are_no_profit(share: float) -> None:
    live = after()
    live.equity *= 0.97
    before = PortfolioIntegrator(FAST, live.integrator.state).build_target_book(
        snapshot(PANEL, ROW, equity=live.equity, positions=live.positions)
    )
    flow = share * live.equity
    d = live.integrator.build_target_book(
        snapshot(PANEL, ROW, equity=live.equity + flow, flows=flow, positions=live.positions)
    )
    assert d.numbers["drawdown"] == pytest.approx(before.numbers["drawdown"], abs=1e-12)
    assert d.haircuts["governor"] == before.haircuts["governor"]


test_incident_21_clock_changes = test_calendar.test_clock_changes_keep_local_time


def test_incident_22_the_half_past_three_that_never_comes() -> None:
    """The day after Thanksgiving closes at 13:00: the allocation moves to 12:30 and later slots vanish."""
    slots = SlotCalendar().slots(pd.Timestamp("2025-11-28"))
    assert max(s.at for s in slots).strftime("%H:%M") == "12:30" and [s.allocates for s in slots].count(True) == 1
    assert slots[-1].allocates


def test_incident_23_no_silent_zone() -> None:
    made = snapshot(PANEL, ROW)
    for zone in ("UTC", "America/New_York"):
        with pytest.raises(InputError) as no:
            PortfolioIntegrator(FAST).build_target_book(
                replace(made, asset_returns=made.asset_returns.tz_localize(zone))
            )
        assert no.value.code == "BAD_INDEX"
    with pytest.raises(InputError) as no:
        PortfolioIntegrator(FAST).build_target_book(replace(made, decided_at=made.decided_at.tz_localize(None)))
    assert no.value.code == "BAD_TIME"


@pytest.mark.parametrize("how", ["nan", "x10", "drop", "reverse sign", "append"])
def test_incident_24_look_ahead_by_perturbation(how: str) -> None:
    made = snapshot(PANEL, ROW)
    returns = PANEL.returns.iloc[: ROW + 30].copy()
    late = returns.iloc[ROW:]
    new = {
        "nan": late * np.nan,
        "x10": late * 10.0,
        "drop": late.iloc[:0],
        "reverse sign": -late,
        "append": pd.concat([late, late.set_axis(late.index + pd.Timedelta(days=90))]),
    }[how]
    targets = tuple(replace(s, history=pd.concat([s.history, new * 3.0])) for s in made.sleeves)
    a = PortfolioIntegrator(FAST).build_target_book(made)
    b = PortfolioIntegrator(FAST).build_target_book(
        replace(made, asset_returns=pd.concat([returns.iloc[:ROW], new]), sleeves=targets)
    )
    assert (a.exposures.to_numpy() == b.exposures.to_numpy()).all()


@pytest.mark.parametrize("n", [1, 4, 7])
def test_incident_25_delisted_symbols(n: int) -> None:
    gone = list(PANEL.symbols)[:n]
    live = after()
    returns = PANEL.returns.copy()
    returns.loc[returns.index[ROW - 2] :, gone] = np.nan
    live.panel = replace(PANEL, returns=returns)
    for row in range(ROW, ROW + 5):
        d = live.day(row)
        assert np.isfinite(d.exposures).all() and np.isfinite(live.equity)


def test_incident_26_vanished_is_not_sold_by_accident() -> None:
    """No list: hold and reduce; a sleeve that fell off the list is held first; only a confirmed empty list closes."""
    live = after()
    before = live.positions / live.equity
    hold = PortfolioIntegrator(FAST, live.integrator.state).build_target_book(
        snapshot(PANEL, ROW, equity=live.equity, positions=live.positions, sleeves=None)
    )
    assert np.allclose(hold.exposures, before.reindex(hold.exposures.index), atol=1e-12)
    lost = PortfolioIntegrator(FAST, live.integrator.state)
    made = snapshot(PANEL, ROW, equity=live.equity, positions=live.positions)
    d = lost.build_target_book(replace(made, sleeves=made.sleeves[1:]))
    assert "SLEEVE_HELD" in codes(d) or "SLEEVE_QUARANTINED" in codes(d)
    assert gross(d) <= held_gross(live) + 1e-9
    closed = live.day(ROW, sleeves=(), sleeves_confirmed=True)
    assert gross(closed) == 0.0


@pytest.mark.parametrize("price", [-37.63, 0.0])
def test_incident_27_negative_and_zero_prices(price: float) -> None:
    live = after()
    prices = pd.Series(50.0, index=list(PANEL.symbols))
    prices["S02"] = price
    quantity = live.positions / 50.0
    d = live.day(ROW, positions=quantity, prices=prices, earn=False)
    assert d.trades["S02"] == 0.0 and any(a.code == "SYMBOL_UNKNOWN" and a.subject == "S02" for a in d.alarms)


def test_incident_28_a_torn_file_is_never_empty(path: Path) -> None:
    said = test_store.make_store(path)
    whole = path.read_bytes()
    for cut in (0, 1, 100, 4096, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(StateError) as no:
            StateStore(path, readonly=True)
        assert no.value.code in ("CORRUPT", "MISSING") and path.stat().st_size == cut
    path.write_bytes(whole)
    with StateStore(path) as store:
        assert test_store.content(store) == said


@pytest.mark.parametrize("jump", ["-1s", "-1h", "-1D", "3650D"])
def test_incident_29_the_clock_steps(desk: Desk, jump: str) -> None:
    row = desk_row(desk)
    made = desk.snapshot(row)
    moved = replace(made, decided_at=made.decided_at + pd.Timedelta(jump), asof=None)
    try:
        d = desk.session.on_slot(moved)
        assert d.status in ("hold", "reduce", "halt") and adds(d) <= 1e-9 or jump == "-1s"
    except InputError as e:
        assert e.code == "SLOT_OVER"
    assert desk.session.on_slot(desk.snapshot(row)).id == desk.session.on_slot(desk.snapshot(row)).id


def test_incident_30_two_daemons_on_one_store(path: Path) -> None:
    with StateStore(path):
        code = (
            f"from pil_research.live import StateStore\ntry: StateStore({str(path)!r})\nexcept Exception as e: print(e.code)"
        )
        out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out == ["LOCKED"]


def test_incident_31_threads_of_blas() -> None:
    code = (
        "from books import *\np=small_panel(21)\nd=PortfolioIntegrator(FAST).build_target_book(snapshot(p,150))\n"
        "import hashlib;print(hashlib.sha256(d.exposures.to_numpy().tobytes()).hexdigest())"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parent,
            env={**os.environ, "OPENBLAS_NUM_THREADS": n, "PYTHONHASHSEED": n},
        ).stdout
        for n in ("1", "2")
    }
    assert len(said) == 1 and len(said.pop()) > 60


@pytest.mark.parametrize("key", ["caps.nane", "governor.flat_att", "kill_tiers.daily_los", "caps.enable"])
def test_incident_32_a_misspelt_key_is_no_protection(key: str) -> None:
    with pytest.raises(ConfigError) as no:
        PILConfig().replace(**{key: 0.1})
    assert no.value.code == "CONFIG_UNKNOWN_KEY" and "nearest known key" in str(no.value)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 60), st.sampled_from(["returns", "sleeve", "list"]))
def test_incident_33_stale_never_means_more(days: int, what: str) -> None:
    """Age can only hold or reduce: no gate is by-passed when data are old."""
    live = after(4)
    made = snapshot(PANEL, ROW, equity=live.equity, positions=live.positions)
    if what == "returns":
        made = replace(
            made,
            asset_returns=made.asset_returns.iloc[:-days],
            sleeves=tuple(replace(s, weights=None, history=s.history.iloc[:-days]) for s in made.sleeves),
        )
    elif what == "sleeve":
        s = made.sleeves[0]
        made = replace(made, sleeves=(replace(s, weights=None, history=s.history.iloc[:-days]), *made.sleeves[1:]))
    else:
        made = replace(made, sleeves=None)
    try:
        d = live.integrator.build_target_book(made)
    except PilError:
        return
    assert gross(d) <= held_gross(live) + 1e-9


@pytest.mark.parametrize("n", range(1, 34))
def test_every_incident_has_its_test(n: int) -> None:
    assert [k for k in globals() if k.startswith(f"test_incident_{n:02d}_")]
