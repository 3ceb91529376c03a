"""The walk-forward: parity with the live path, the configuration axis, lags, costs, and the accounts' arithmetic."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from books import CAPPED, FAST, Live, small_panel, with_closure, without
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.config import PILConfig
from pil_research.estimate import EstimateSettings, Estimator, History
from pil_research.integrator import PortfolioIntegrator
from pil_research.research.ladder_page import ladder_html
from pil_research.research.ladder_result import ladder_json, ladder_result, panel_facts
from pil_research.research.ladder_study import RUNGS, ladder_study
from pil_research.research.panel import Panel
from pil_research.research.panel_arrays import panel_arrays
from pil_research.research.walk_forward import (
    CarryCosts,
    Track,
    WalkForward,
    run_tracks,
    snapshot_at,
    walk_forward,
)
from pil_research.stages.turnover import trade_costs
from pil_research.types import BINDING, InputError

PANEL = small_panel(3, t=330, missing=0.002, regime=True)


def parity(panel: Panel, config: PILConfig, days: int = 30, *, aligned: bool = False, **settings_: Any) -> float:
    """Largest difference between the walk-forward and as many live sessions, fed with its equity."""
    w = walk_forward(panel, {"x": config}, dynamic_tier=True, **settings_)
    first = panel.dates.get_loc(w.dates[0])
    integrator, positions, equity, worst = (
        PortfolioIntegrator(config),
        pd.Series(0.0, index=list(panel.symbols)),
        5e6,
        0.0,
    )
    history = None
    if aligned:
        history = History(
            panel.symbols,
            panel.sleeve_ids,
            panel.returns.to_numpy()[:first],
            panel.target_array()[:first],
            panel.dates.to_numpy()[:first],
        )
    for j in range(days):
        row = first + j
        d = integrator.build_target_book(
            snapshot_at(panel, panel.dates[row], equity=equity, positions=positions, history=history)
        )
        now = {
            "leverage": d.numbers["leverage"],
            "governor": d.haircuts["governor"],
            "throttle": d.haircuts["throttle"],
            "gross_exposure": float(d.exposures.abs().sum()),
            "net_exposure": float(d.exposures.sum()),
            "turnover": d.numbers["turnover"],
            "vol_target": d.numbers["vol_target"],
            "ex_ante_vol": d.numbers["ex_ante_vol"] / 0.5,
        }
        worst = max(
            [
                worst,
                *(abs(v - float(getattr(w, k)["x"].iloc[j])) for k, v in now.items()),
                float((d.sleeve_weights - w.sleeve_weights["x"].iloc[j]).abs().max()),
            ]
        )
        ret = panel.returns.iloc[row].fillna(0.0)
        positions = d.exposures * equity * (1.0 + ret)
        equity *= 1.0 + float(w.returns["x"].iloc[j])
        if history is not None:
            history.append(panel.dates.to_numpy()[row], panel.returns.to_numpy()[row], panel.target_array()[row])
    return worst


PARITY: list[dict[str, Any]] = [
    {},
    {"allocation.method": "erc"},
    {"allocation.method": "equal"},
    {"allocation.variant": "paper"},
    {"tilt.skill": False},
    {"tilt.redundancy": True, "tilt.redundancy_threshold": 0.1},
    {"covariance.window": 0},
    {"regime.enabled": False},
    {"turnover.gate": False, "turnover.band": 0.0},
    {"turnover.trade_to": "edge"},
    {"allocation.cadence": "weekly"},
    {"turnover.impact": 3.0},
    {"risk.model": "factor", "risk.factors": 2},
    {"sleeves.normalise": False},
    {"governor.enabled": False},
]


@pytest.mark.parametrize("changes", PARITY, ids=lambda c: ",".join(c) or "default")
def test_live_equals_walk_forward(changes: dict[str, Any]) -> None:
    assert parity(PANEL, FAST.replace(**changes)) <= 1e-12


def test_parity_over_a_long_closure() -> None:
    """On the first session after a fortnight without bars both hold."""
    w = walk_forward(PANEL, {"x": FAST})
    at = 5 + int((w.turnover["x"].to_numpy()[5:] > 0.0).argmax())
    closed = with_closure(PANEL, w.dates[at])
    assert parity(closed, FAST, at + 5) <= 1e-12
    after = walk_forward(closed, {"x": FAST})
    assert w.turnover["x"].iloc[at] > 0.0 and after.turnover["x"].iloc[at] == pytest.approx(0.0, abs=1e-12)


def test_parity_over_a_long_closure_that_ends_on_the_day_of_the_week() -> None:
    """A week whose first session could not be decided on is allocated in its second, in both."""
    config = FAST.replace(**{"allocation.cadence": "weekly", "allocation.apply_threshold": 0.0})
    w = walk_forward(PANEL, {"x": config})
    at = next(i for i in range(8, 20) if w.dates[i].dayofweek == 0)
    closed = with_closure(PANEL, w.dates[at])
    assert parity(closed, config, at + 6) <= 1e-12
    weights = walk_forward(closed, {"x": config}).sleeve_weights["x"].to_numpy()
    assert (weights[at] == weights[at - 1]).all() and (weights[at + 1] != weights[at]).any()
    assert (weights[at + 2] == weights[at + 1]).all()


def test_live_with_a_growing_history_equals_walk_forward() -> None:
    assert parity(PANEL, FAST, aligned=True) <= 1e-12
    assert parity(PANEL, CAPPED, aligned=True) <= 1e-12


def test_parity_with_the_defaults_and_a_young_sleeve() -> None:
    """A sleeve that starts late, one that is promoted, one demoted, one that comes back: the same paths in both."""
    late = small_panel(5, k=5, t=330)
    early = 45
    targets = {k: v.copy() for k, v in late.targets.items()}
    targets["sleeve_e"].iloc[:235] = np.nan
    days = late.dates
    facts = late.sleeves.assign(
        promoted_on=[pd.NaT, days[262], days[275], pd.NaT, pd.NaT],
        demoted_on=[pd.NaT, pd.NaT, days[260], days[270], pd.NaT],
        capacity=[6e5, np.nan, np.nan, np.nan, np.nan],
    )
    panel = replace(late, targets=targets, sleeves=facts)
    assert parity(panel, FAST, early) <= 1e-12


def test_parity_with_silent_days() -> None:
    """Rows without a target: held, quarantined and back, in both."""
    targets = {k: v.copy() for k, v in PANEL.targets.items()}
    targets["sleeve_b"].iloc[258:264] = np.nan
    targets["sleeve_c"].iloc[270:272] = np.nan
    panel = replace(PANEL, targets=targets)
    w = walk_forward(panel, {"x": FAST}, dynamic_tier=True)
    assert (w.sleeve_weights["x"]["sleeve_b"] == 0.0).sum() > 0
    assert w.binding.loc["x", "held"] > 0
    assert parity(panel, FAST, 25) <= 1e-12


# ---------------------------------------------------------------- configuration axis


def tables(w: WalkForward, name: str) -> dict[str, np.ndarray]:
    out = {
        t: getattr(w, t)[name].to_numpy(dtype=float)
        for t in (
            "returns",
            "gross_returns",
            "equity",
            "costs",
            "turnover",
            "leverage",
            "governor",
            "throttle",
            "gross_exposure",
            "net_exposure",
            "ex_ante_vol",
            "vol_target",
            "erc_divergence",
        )
    }
    out["equity"] = out["equity"] / 5e6
    out["weights"] = w.sleeve_weights[name].to_numpy()
    out["binding"] = w.binding.loc[name].to_numpy(dtype=float)
    return out


def test_one_configuration_equals_a_hundred() -> None:
    """A row of the configuration axis does not know its neighbours (<= 1e-12), the switches of the grid included."""
    rng, grid = np.random.default_rng(0), {}
    for i in range(100):
        pick = lambda *v: v[int(rng.integers(len(v)))]  # noqa: B023
        grid[f"c{i}"] = FAST.replace(
            **{
                "allocation.method": pick("hrp", "erc", "equal", "inverse_vol", "min_variance", "nco", "herc"),
                "allocation.variant": pick("direct", "paper"),
                "allocation.cadence": pick("daily", "weekly"),
                "allocation.smoothing": pick(0.0, 0.8, 0.9),
                "covariance.target": pick("constant_correlation", "identity", "none"),
                "covariance.intensity_scale": pick(0.5, 1.0, 1.5),
                "caps.enabled": pick(True, True, False),
                "caps.net": pick(0.2, 1.0),
                "turnover.gate": pick(True, False),
                "turnover.trade_to": pick("target", "edge"),
                "turnover.band": pick(0.0, 0.0075, 0.02),
                "vol_target.enabled": pick(True, True, False),
                "vol_target.target": pick(0.08, 0.12),
                "governor.enabled": pick(True, False),
                "regime.enabled": pick(True, False),
                "sizing.kelly": pick(0.5, 1.0),
                "tilt.skill": pick(True, False),
                "sleeves.normalise": pick(True, True, False),
            }
        )
    end = PANEL.dates[285]
    together = walk_forward(PANEL, grid, end=end)
    assert together.names == tuple(grid)
    for i in range(0, 100, 7):
        alone = tables(walk_forward(PANEL, {"x": grid[f"c{i}"]}, end=end), "x")
        for key, value in tables(together, f"c{i}").items():
            np.testing.assert_allclose(value, alone[key], rtol=0, atol=1e-12, err_msg=f"c{i} {key}")


def test_order_of_tracks_is_irrelevant() -> None:
    grid = {"a": FAST, "b": FAST.replace(**{"tilt.skill": False}), "c": FAST.replace(**{"allocation.method": "erc"})}
    x, y = walk_forward(PANEL, grid), walk_forward(PANEL, dict(reversed(grid.items())))
    for name in grid:
        for key, value in tables(x, name).items():
            np.testing.assert_allclose(value, tables(y, name)[key], rtol=0, atol=1e-12, err_msg=key)


# ---------------------------------------------------------------- point in time


@settings(max_examples=8, deadline=None)
@given(st.integers(286, 325), st.integers(0, 10**6))
def test_the_past_of_a_track_does_not_know_its_future(cut: int, seed: int) -> None:
    """Everything dated on or after a session changed: the books up to that session stay, bit for bit."""
    rng = np.random.default_rng(seed)
    returns, targets, regime = (
        PANEL.returns.copy(),
        {k: v.copy() for k, v in PANEL.targets.items()},
        PANEL.regime.copy(),
    )
    returns.iloc[cut:] = 0.02 * rng.standard_normal(returns.iloc[cut:].shape)
    for v in targets.values():
        v.iloc[cut:] = rng.standard_normal(v.iloc[cut:].shape)
    regime.iloc[cut:, 0] = "crisis"
    a, b = (
        walk_forward(p, {"x": FAST}, start=PANEL.dates[285])
        for p in (PANEL, replace(PANEL, returns=returns, targets=targets, regime=regime))
    )
    n = cut - PANEL.dates.get_loc(a.dates[0])
    for key in ("leverage", "turnover", "gross_exposure", "net_exposure", "vol_target", "governor"):
        assert (getattr(a, key)["x"].to_numpy()[: n + 1] == getattr(b, key)["x"].to_numpy()[: n + 1]).all(), key
    assert (a.sleeve_weights["x"].to_numpy()[: n + 1] == b.sleeve_weights["x"].to_numpy()[: n + 1]).all()
    assert (a.returns["x"].to_numpy()[:n] == b.returns["x"].to_numpy()[:n]).all()
    assert not (a.returns["x"].to_numpy() == b.returns["x"].to_numpy()).all()


# ---------------------------------------------------------------- lag, costs, accounts


def test_lag_one_decides_the_same_and_earns_a_bar_later() -> None:
    w = run_tracks(
        PANEL, [Track(name="now", config=FAST, cost_scale=0.0), Track(name="later", config=FAST, cost_scale=0.0, lag=1)]
    )
    assert w.gross_exposure["now"].iloc[0] == w.gross_exposure["later"].iloc[0] > 0.0
    assert w.returns["later"].iloc[0] == 0.0 and w.returns["now"].iloc[0] != 0.0
    live = Live(PANEL)
    first = PANEL.dates.get_loc(w.dates[0])
    book = live.day(first).exposures.to_numpy()
    r = PANEL.returns.fillna(0.0).to_numpy()
    assert w.returns["now"].iloc[0] == pytest.approx(float(book @ r[first]), abs=1e-12)
    drifted = book * (1.0 + r[first])  # bought at the close of the first bar, in the quantities decided before it
    assert w.returns["later"].iloc[1] == pytest.approx(float(drifted @ r[first + 1]), abs=1e-12)


def test_costs_are_monotone_and_only_costs() -> None:
    config = FAST.replace(**{"governor.enabled": False})
    tracks = [Track(name=str(c), config=config, cost_scale=c) for c in (0.0, 1.0, 2.0)]
    w = run_tracks(PANEL, tracks, carry=CarryCosts())
    end = w.equity.iloc[-1]
    assert end["0.0"] > end["1.0"] > end["2.0"] and (w.costs["0.0"] == 0.0).all() and (w.costs >= 0.0).all().all()
    np.testing.assert_allclose(w.gross_returns - w.returns, w.costs, rtol=0, atol=1e-15)
    np.testing.assert_allclose(w.costs["2.0"].iloc[0], 2.0 * w.costs["1.0"].iloc[0], rtol=1e-12)
    np.testing.assert_allclose(w.equity, 5e6 * (1.0 + w.returns).cumprod(), rtol=1e-12)
    assert w.meta["account"] == 5e6


def test_costs_are_those_of_the_formula() -> None:
    """Half spread + fee + square-root impact on the first day's trades, plus rolls, by hand."""
    w = walk_forward(PANEL, {"x": FAST})
    first = PANEL.dates.get_loc(w.dates[0])
    live = Live(PANEL)
    e = live.day(first).exposures.to_numpy()
    sd = live.integrator._estimator._risk[1].sd  # type: ignore[union-attr,index]
    trade = trade_costs(e, half_spread=1e-4, fee=2e-5, impact=1.0, daily_vol=sd, equity=5e6, adv=np.full(8, 1e9)).sum()
    by_hand = (np.abs(e) * (1.2e-4 + sd * np.sqrt(np.abs(e) * 5e6 / 1e9))).sum()
    roll = 4.0 * np.abs(e).sum() * 1.2e-4 / 252.0
    assert trade == pytest.approx(by_hand, rel=1e-12)
    assert w.costs["x"].iloc[0] == pytest.approx(by_hand + roll, rel=1e-9)


def test_funded_names_pay_financing_and_borrow() -> None:
    funded = replace(PANEL, instruments=PANEL.instruments.assign(kind="etf"))
    free, paid = (
        run_tracks(funded, [Track(name="x", config=FAST)], carry=c)
        for c in (CarryCosts(financing=0.0, borrow=0.0), CarryCosts(financing=0.0, borrow=0.05))
    )
    e = paid.gross_exposure["x"].iloc[0], paid.net_exposure["x"].iloc[0]
    shorts = 0.5 * (e[0] - e[1])
    assert paid.costs["x"].iloc[0] - free.costs["x"].iloc[0] == pytest.approx(0.05 * shorts / 252.0, rel=1e-9)


def test_turnover_includes_drift() -> None:
    w = walk_forward(
        PANEL, {"x": FAST.replace(**{"turnover.band": 0.0, "turnover.gate": False, "ladder.min_ticket": [0.0] * 4})}
    )
    assert (w.turnover["x"] >= 0.0).all() and w.turnover["x"].iloc[0] == pytest.approx(
        0.5 * w.gross_exposure["x"].iloc[0]
    )


def test_shapes_and_summary() -> None:
    w = walk_forward(PANEL, [FAST, FAST.replace(**{"allocation.method": "erc"})])
    assert w.names == ("c0", "c1") and list(w.binding.columns) == list(BINDING)
    assert w.table().shape[0] == 2 and np.isfinite(w.table().to_numpy()).all()
    assert (w.rungs.sum(axis=1) == len(w.dates)).all() and w.rungs.loc["c0", "hrp"] == len(w.dates)
    assert w.weights is w.sleeve_weights and "net_sharpe" in w._repr_html_()
    assert len(w.final_states) == 2 and w.final_states[0].applied.shape == (1, 4)


def test_exposures_are_kept_when_asked() -> None:
    plain, off = Track(name="a", config=FAST), Track(name="off", config=FAST.replace(**{"vol_target.enabled": False}))
    tracks = [plain, off, replace(plain, name="b", cost_scale=2.0)]
    w = run_tracks(PANEL, tracks, keep_exposures=["b", "off"])
    assert set(w.exposures) == {"b", "off"} and run_tracks(PANEL, [plain]).exposures == {}
    for name, book in w.exposures.items():
        assert book.shape == (len(w.dates), len(PANEL.symbols)) and list(book.columns) == list(PANEL.symbols)
        np.testing.assert_allclose(book.abs().sum(axis=1), w.gross_exposure[name], rtol=0, atol=1e-15)
        earned = (book * PANEL.returns.loc[w.dates].fillna(0.0)).sum(axis=1)
        np.testing.assert_allclose(earned, w.gross_returns[name], rtol=0, atol=1e-15)
    one = w.select({"b": "other", "a": "first"})
    assert list(one.exposures) == ["other"] and one.exposures["other"] is w.exposures["b"]
    with pytest.raises(InputError, match="no track") as caught:
        run_tracks(PANEL, tracks, keep_exposures=["B"])
    assert caught.value.code == "UNKNOWN_TRACK"


def test_ladder_runs_every_rung_under_every_setting() -> None:
    study = ladder_study(PANEL, FAST, end=PANEL.dates[280])
    rungs = (*RUNGS, "legacy")
    assert study.rungs == rungs and study.base.names == rungs
    for name in ("lag1", "cost0", "cost2", "expanding", "no_regime"):
        assert getattr(study, name).names == rungs and len(getattr(study, name).dates) == len(study.base.dates)
    assert (study.cost0.costs == 0.0).all().all()
    assert (study.no_regime.vol_target[list(RUNGS)] == 0.10).all().all()
    np.testing.assert_allclose(study.base.sleeve_weights["1/N-risk"].to_numpy(), 0.25, atol=1e-12)
    assert np.isfinite(study.base.table()["net_sharpe"]).all() and np.isnan(study.base.table().loc["legacy", "effective_n"])


def test_sleeve_returns_are_what_sleeves_earned() -> None:
    """Every bar the book earns, at yesterday's target and scale; nothing divided by the days a return spans."""
    gaps = PANEL.returns.copy()
    gaps.iloc[290:293, :5] = np.nan  # a bar without most quotes, then a return over several days
    panel = replace(PANEL, returns=gaps)
    w = walk_forward(panel, {"x": FAST})
    q = panel_arrays(panel)
    scale = Estimator(q.history, EstimateSettings.of(FAST), ()).rows("scale")
    for k, name in enumerate(panel.sleeve_ids):
        unit = panel.targets[name].ffill().to_numpy()
        unit = unit / np.abs(unit).sum(axis=1, keepdims=True)
        earned = pd.Series(scale[:-1, k] * (unit[:-1] * gaps.fillna(0.0).to_numpy()[1:]).sum(axis=1), index=panel.dates[1:])
        np.testing.assert_allclose(w.sleeve_returns[name], earned[w.dates], rtol=0, atol=1e-14)
    assert w.sleeve_returns.notna().all().all()


def test_the_ladder_has_a_small_account() -> None:
    """Whole contracts where the panel can tell their size, fractions elsewhere; the page says which."""
    price = 100.0 * (1.0 + PANEL.returns.fillna(0.0)).cumprod()
    priced = replace(PANEL, prices=price, instruments=PANEL.instruments.assign(multiplier=20.0))
    rungs, texts, lots = ("HRP", "ERC", "1/N-risk"), [], []
    for panel in (PANEL, priced):
        study = ladder_study(panel, FAST, rungs=rungs)
        result = ladder_result(study, kelly=0.5, n_draws=100)
        small = study.panel_facts["small"]
        assert small.walk.names == rungs and small.whole == result.small_whole == (panel is priced)
        assert (small.walk.dates == study.base.dates).all() and small.walk.meta["account"] == 2.5e5
        assert result.small["sharpe"]["HRP"] == pytest.approx(small.walk.table()["net_sharpe"]["HRP"])
        lots.append(int(result.small["lot_days"].sum()))
        assert ladder_json(result)["small_account"]["rungs"]["HRP"]["lot_days"] == result.small["lot_days"]["HRP"]
        texts.append(ladder_html(result, study, panel_facts(panel)))
    assert lots[0] == 0 < lots[1]
    assert "no un-adjusted prices" in texts[0] and "in whole contracts and shares" in texts[1]


def test_whole_lots() -> None:
    price = 100.0 * (1.0 + PANEL.returns.fillna(0.0)).cumprod()
    panel = replace(PANEL, prices=price, instruments=PANEL.instruments.assign(multiplier=50.0))
    w = run_tracks(panel, [Track(name="x", config=FAST)], vehicles=True, account=2.5e5)
    assert w.binding.loc["x", "lot"] > 0 and np.isfinite(w.returns["x"]).all()
    with pytest.raises(InputError, match="prices") as caught:
        run_tracks(PANEL, [Track(name="x", config=FAST)], vehicles=True)
    assert caught.value.code == "MISSING_PRICES"
    with pytest.raises(InputError, match="multiplier"):
        run_tracks(replace(panel, instruments=PANEL.instruments), [Track(name="x", config=FAST)], vehicles=True)


def test_refusals() -> None:
    for code, call in (
        ("TOO_SHORT", lambda: walk_forward(small_panel(t=200), FAST)),
        ("EMPTY_RANGE", lambda: walk_forward(PANEL, FAST, start="2031-01-01")),
        ("DUPLICATE_TRACK", lambda: run_tracks(PANEL, [Track(name="x", config=FAST)] * 2)),
        ("DUPLICATE_TRACK", lambda: run_tracks(PANEL, [])),
        ("BAD_LAG", lambda: Track(name="x", config=FAST, lag=2)),
        ("BAD_COST", lambda: Track(name="x", config=FAST, cost_scale=float("nan"))),
        ("NO_HISTORY", lambda: snapshot_at(PANEL, PANEL.dates[0], equity=1e6)),
    ):
        with pytest.raises(InputError, match=".") as caught:
            call()
        assert caught.value.code == code


def test_start_never_comes_before_the_common_one() -> None:
    """All rungs share one start: the first session with two sleeves of 252 bars."""
    early = walk_forward(PANEL, FAST, start="2020-01-01", end=PANEL.dates[270])
    assert PANEL.dates.get_loc(early.dates[0]) in range(253, 262)
    later = walk_forward(PANEL, FAST, start=PANEL.dates[265], end=PANEL.dates[270])
    assert later.dates[0] == PANEL.dates[265] and len(later.dates) == 6


def test_missing_targets_helper_matches_the_panel() -> None:
    made = without(snapshot_at(PANEL, PANEL.dates[280], equity=5e6), "sleeve_a")
    assert made.sleeves is not None and made.sleeves[0].weights is None and made.sleeves[1].weights is not None


def test_only_the_tables_asked_for_are_kept_and_others_say_so() -> None:
    from pil_research.research.walk_forward import TABLES

    tracks = [Track(name="a", config=PILConfig()), Track(name="b", config=PILConfig().replace(**{"allocation.method": "erc"}))]
    whole = run_tracks(PANEL, tracks)
    few = run_tracks(PANEL, tracks, tables=("returns", "rungs"))
    pd.testing.assert_frame_equal(few.returns, whole.returns)
    pd.testing.assert_frame_equal(few.rungs, whole.rungs)
    for name in sorted(set(TABLES) - {"returns", "rungs"}):
        with pytest.raises(InputError, match=name) as err:
            getattr(few, name)["a"]
        assert err.value.code == "NOT_KEPT"
    with pytest.raises(InputError, match="equity"):
        few.select({"a": "z"}).equity.mean()
    with pytest.raises(InputError, match="UNKNOWN_TABLE|nosuch"):
        run_tracks(PANEL, tracks, tables=("nosuch",))


@pytest.mark.parametrize("configs", ["hrp", {"a": "hrp"}, ["hrp"], None, 3, {"a": None}])
def test_configurations_that_are_none_are_a_typed_error(configs: Any) -> None:
    with pytest.raises(InputError, match="PILConfig") as caught:
        walk_forward(PANEL, configs)
    assert caught.value.code == "BAD_CONFIG"


@pytest.mark.parametrize(("settings", "code"), [({"start": "bogus"}, "BAD_DATE"), ({"end": "bogus"}, "BAD_DATE"),
                                                ({"costs": "x"}, "BAD_COST"), ({"costs": None}, "BAD_COST")])
def test_run_settings_that_are_none_are_a_typed_error(settings: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError, match="must be") as caught:
        walk_forward(PANEL, FAST, **settings)
    assert caught.value.code == code
