"""Sleeves alone, the book with other members, rehearsals and the page: by hand, against the walk-forward, on planted truth."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pil_research.config import PILConfig
from pil_research.research.data import synthetic_panel
from pil_research.research.ladder_inputs import record_trials
from pil_research.research.ladder_result import panel_facts
from pil_research.research.membership_walk import Case, walk_members
from pil_research.research.metrics import sharpe
from pil_research.research.page import check_page
from pil_research.research.panel import Panel
from pil_research.research.promotion_rehearsal import (
    SleeveStudy,
    case_panel,
    promoted,
    rehearsal_cases,
    rehearsal_dates,
    sleeve_study,
    study_cases,
)
from pil_research.research.sharpe_tests import sharpe_difference
from pil_research.research.sleeve_evidence import (
    ALL,
    StandAlone,
    capacity,
    correlations,
    crisis_days,
    decay_table,
    marginal_table,
    sleeve_reading,
    sleeve_table,
    stand_alone,
    without,
)
from pil_research.research.sleeves_page import sleeve_checks, sleeves_html, sleeves_status, write_sleeves_run
from pil_research.research.trials import TrialLedger
from pil_research.research.walk_forward import Track, WalkForward, run_tracks
from pil_research.types import InputError

CONFIG = PILConfig()
TRACKS = [Track(name="0", config=CONFIG), Track(name="1", config=CONFIG, lag=1)]


@pytest.fixture(scope="module")
def panel() -> Panel:
    return synthetic_panel(11, n_sleeves=4, n_symbols=6, n_days=640)


@pytest.fixture(scope="module")
def study(panel: Panel) -> SleeveStudy:
    return sleeve_study(panel, CONFIG, 40, rehearsal_dates(panel, 1), n_draws=200)


def same(walk: WalkForward, case: str, w: WalkForward) -> None:
    for name, lag in (("0", "lag0"), ("1", "lag1")):
        for table in ("returns", "gross_returns", "costs", "turnover", "gross_exposure", "ex_ante_vol"):
            a, b = getattr(walk, table)[f"{case}|{lag}"], getattr(w, table)[name]
            np.testing.assert_allclose(a[w.dates], b, rtol=0, atol=1e-14, err_msg=f"{table} {lag}")
    ids = list(w.sleeve_weights["0"])
    np.testing.assert_allclose(walk.weights[f"{case}|lag0"].loc[w.dates, ids], w.sleeve_weights["0"], rtol=0, atol=1e-14)


def test_members_equal_the_walk_forward(panel: Panel) -> None:
    s, when = panel.sleeve_ids[1], panel.dates[530]
    walk = walk_members(panel, CONFIG, [Case(name="all"), Case(name="late", promoted={s: when}), Case(name="none", absent=(s,))],
                        start=panel.dates[440])
    same(walk, "all", run_tracks(panel, TRACKS, start=panel.dates[440]))
    same(walk, "late", run_tracks(case_panel(panel, Case(name="late", promoted={s: when})), TRACKS, start=panel.dates[440]))
    same(walk, "none", run_tracks(case_panel(panel, Case(name="none", absent=(s,))), TRACKS, start=panel.dates[440]))


def test_a_promotion_changes_nothing_before_its_date(panel: Panel) -> None:
    s, when = panel.sleeve_ids[0], panel.dates[560]
    walk = walk_members(panel, CONFIG, [Case(name="x", promoted={s: when}), Case(name="y", absent=(s,))], lags=(0,))
    before = walk.dates < when
    pd.testing.assert_series_equal(walk.returns.loc[before, "x|lag0"], walk.returns.loc[before, "y|lag0"], check_names=False,
                                   check_exact=True)
    weight = walk.weights["x|lag0"][s]
    assert (weight[before] == 0.0).all() and weight[~before].iloc[0] > 0.0
    assert walk.weights["y|lag0"][s].abs().max() == 0.0


def test_own_promotion_dates_stay(panel: Panel) -> None:
    s, when = panel.sleeve_ids[2], panel.dates[520]
    sleeves = panel.sleeves.copy()
    sleeves["promoted_on"] = pd.to_datetime(sleeves["promoted_on"])
    sleeves.loc[s, "promoted_on"] = when
    own = replace(panel, sleeves=sleeves)
    same(walk_members(own, CONFIG, [Case(name="all")]), "all", run_tracks(own, TRACKS))


@pytest.mark.parametrize("bad", [[], [Case(name="a"), Case(name="a")], [Case(name="a", absent=("nobody",))]])
def test_bad_cases(panel: Panel, bad: list[Case]) -> None:
    with pytest.raises(InputError, match="at least one entry|name sleeves"):
        walk_members(panel, CONFIG, bad)


def test_bad_lags_and_discount(panel: Panel) -> None:
    for config, lags in ((CONFIG, (2,)), (CONFIG, ()), (CONFIG.replace(**{"tilt.redundancy": True}), (0,))):
        with pytest.raises(InputError, match="lags must be 0 or 1"):
            walk_members(panel, config, [Case(name="a")], lags=lags)


def test_alone_by_hand(panel: Panel) -> None:
    """One sleeve in plain Python, from its own numbers."""
    small = panel.select(sleeves=panel.sleeve_ids[:2])
    a = stand_alone(small, CONFIG, lags=(0, 1), account=1e6)
    full = stand_alone(panel, CONFIG, lags=(0,), account=1e6)
    np.testing.assert_allclose(a.gross[:, 0], full.gross[:, 0, :2], rtol=0, atol=1e-15)  # a sleeve does not depend on others
    x = a.net(0)
    live = x.notna().all(axis=1)
    assert live.sum() > 450 and (x[live].std() * np.sqrt(252)).between(0.07, 0.14).all()
    late, zero = a.gross[:, 1, 0], a.gross[:, 0, 0]
    assert np.nanmax(np.abs(late - zero)) > 0.0 and (a.turnover[live, 0] >= 0.0).all() and (a.linear[live, 0] >= 0.0).all()


def one_symbol(weights: list[float], returns: list[float], **columns: float) -> StandAlone:
    """A sleeve in one future, as a tape that can be done by hand."""
    n = len(weights)
    base = synthetic_panel(1, n_sleeves=2, n_symbols=3, n_days=n)
    symbols = list(base.symbols)
    table = pd.DataFrame(0.0, index=base.dates, columns=symbols)
    table[symbols[0]] = weights
    moves = pd.DataFrame(0.0, index=base.dates, columns=symbols)
    moves[symbols[0]] = returns
    instruments = base.instruments.assign(half_spread_bps=10.0, fee_bps=0.0, impact_bps=0.0, kind="etf", **columns)
    panel = replace(base, returns=moves, targets=dict.fromkeys(base.sleeve_ids, table), instruments=instruments, regime=None,
                    prices=None, cost_schedule=None, cash=None, other_book=None)
    return stand_alone(panel, CONFIG, lags=(0,), account=1e6)


def test_a_tape_by_hand() -> None:
    rng = np.random.default_rng(0)
    n = 400
    r = np.where(np.arange(n) % 2, 0.01, -0.01) + 1e-5 * rng.normal(size=n)
    w = np.ones(n)
    w[300:] = -1.0
    a = one_symbol(list(w), list(r), impact_y=0.0)
    vol = 0.01 * np.sqrt(252)
    at = 250
    np.testing.assert_allclose(a.exposure[at, 0, 0], 0.10 / vol, rtol=0.03)
    np.testing.assert_allclose(a.gross[at, 0, 0], a.exposure[at, 0, 0] * r[at], rtol=1e-9)
    flip = 301  # the target of row 300 is traded before bar 301
    np.testing.assert_allclose(a.turnover[flip, 0, 0], a.exposure[flip, 0, 0], rtol=0.05)
    borrowed = 0.005 / 252 * a.exposure[flip, 0, 0]
    np.testing.assert_allclose(a.linear[flip, 0, 0], 2.0 * a.turnover[flip, 0, 0] * 10e-4 + borrowed, rtol=1e-9)
    assert (a.turnover[flip + 1:, 0, 0] < 0.2).all() and (a.impact[flip] == 0.0).all()


def test_impact_and_capacity() -> None:
    rng = np.random.default_rng(1)
    n = 600
    r = 0.002 + 0.01 * rng.normal(size=n)
    w = np.where(np.arange(n) % 63 < 42, 1.0, 0.0)
    a = one_symbol(list(w), list(r), adv_usd=1e8, impact_y=1.0)
    row = sleeve_table(a, n_draws=50).iloc[0]
    assert row["volume_known"] == pytest.approx(1.0) and row["capacity"] > 0.0
    live = np.isfinite(a.gross[:, 0, 0])
    cost = (a.linear + a.impact * np.sqrt(row["capacity"]))[live, 0, 0]
    assert cost.mean() == pytest.approx(0.5 * a.gross[live, 0, 0].mean(), rel=1e-9)  # half of the gross return, as defined


@pytest.mark.parametrize(("gross", "linear", "impact", "wanted"), [
    (1.0, 0.3, 0.1, 4.0), (1.0, 0.6, 0.1, 0.0), (-1.0, 0.1, 0.1, np.nan), (1.0, 0.1, 0.0, np.nan), (np.nan, 0.1, 0.1, np.nan)])
def test_capacity(gross: float, linear: float, impact: float, wanted: float) -> None:
    assert capacity(gross, linear, impact) == pytest.approx(wanted, nan_ok=True)


def test_table_and_decay_agree_with_the_tests(panel: Panel) -> None:
    a = stand_alone(panel, CONFIG)
    t, d = sleeve_table(a, n_draws=200), decay_table(a, n_draws=200)
    s = panel.sleeve_ids[0]
    net = a.net(0)[s].dropna()
    assert t["net_sharpe"][s] == pytest.approx(sharpe(net.to_numpy()))
    assert t["low"][s] < t["net_sharpe"][s] < t["high"][s] and (t["net_sharpe"] < t["gross_sharpe"]).all()
    x = pd.concat([a.net(lag)[s] for lag in (0, 1, 2)], axis=1).dropna().to_numpy()
    by_hand = sharpe_difference(x[:, 2], x[:, 0], bars_per_year=252, n_draws=200)
    assert d["change2"][s] == pytest.approx(by_hand.difference) and d["low2"][s] == pytest.approx(by_hand.interval[0])


def test_a_clairvoyant_sleeve_decays_and_leaks() -> None:
    panel = synthetic_panel(5, n_sleeves=3, n_symbols=8, n_days=700)
    s = panel.sleeve_ids[0]
    seen = np.sign(panel.returns.shift(-1).fillna(0.0))
    cheat = replace(panel, targets={**panel.targets, s: seen.where(panel.targets[s].notna().any(axis=1), np.nan)})
    found = sleeve_study(cheat, CONFIG, 40, (), n_draws=100)
    assert found.table["reading"][s] == "leaks" and found.table["leak"][s] == "found" and sleeves_status(found) == "FAIL"
    assert found.decay["high1"][s] < 0.0 and found.decay["lag1"][s] < 0.1 * found.decay["lag0"][s]
    assert {c["id"]: c["status"] for c in sleeve_checks(found)}[f"sleeves.{s}.leaks"] == "fail"
    assert found.rehearsal.empty and "Promotion rehearsal" in sleeves_html(found, panel_facts(cheat))


def test_correlations_and_crisis_days(panel: Panel) -> None:
    rng = np.random.default_rng(3)
    x = pd.DataFrame(rng.normal(size=(300, 2)), columns=["a", "b"])
    days = np.arange(300) < 100
    x.loc[days, "b"] = x.loc[days, "a"]
    assert correlations(x, days).loc["a", "b"] == pytest.approx(1.0) and abs(correlations(x).loc["a", "b"]) < 0.6
    assert correlations(x, np.arange(300) < 50).isna().to_numpy().all()
    read = pd.DataFrame({"label": "risk_on", "confidence": 1.0}, index=panel.dates)
    read.iloc[5, 0] = "crisis"
    assert np.flatnonzero(crisis_days(replace(panel, regime=read))).tolist() == [6]  # known at close 5, used on 6
    assert not crisis_days(replace(panel, regime=None)).any()


def test_marginal_signs(study: SleeveStudy, panel: Panel) -> None:
    for s in panel.sleeve_ids:
        gap = study.levels["net_sharpe"][ALL] - study.levels["net_sharpe"][without(s)]
        assert study.marginal["difference"][s] == pytest.approx(gap) and study.marginal["d_net_sharpe"][s] == pytest.approx(gap)
        assert study.marginal["low"][s] <= study.marginal["high"][s]
    assert (study.marginal["d_effective_n"] > 0.0).all() and study.marginal["weight"].sum() == pytest.approx(1.0, abs=0.1)


def test_an_empty_sleeve_brings_nothing() -> None:
    panel = synthetic_panel(6, n_sleeves=3, n_symbols=6, n_days=520)
    s = panel.sleeve_ids[2]
    none = replace(panel, targets={**panel.targets, s: panel.targets[s] * np.nan})
    walk = walk_members(none, CONFIG, [Case(name=ALL), *(Case(name=without(k), absent=(k,)) for k in panel.sleeve_ids)])
    row = marginal_table(walk, panel.sleeve_ids, n_draws=100).loc[s]
    assert row["difference"] == 0.0 and row["low"] == 0.0 == row["high"] and row["weight"] == 0.0
    assert sleeve_reading(sleeve_table(stand_alone(none, CONFIG), n_draws=50).to_dict("index")[s]) == "undecided"


def test_rehearsal(study: SleeveStudy, panel: Panel) -> None:
    when, = rehearsal_dates(panel, 1)
    assert len(study.rehearsal) == 4 and set(study.rehearsal["sleeve"]) == set(panel.sleeve_ids)
    cases = rehearsal_cases(panel, [when])
    walk = walk_members(panel, CONFIG, study_cases(panel, [when]))
    for row in study.rehearsal.to_dict("records"):
        s = row["sleeve"]
        a, b = (walk.returns[f"{n}|lag0"].loc[when:].to_numpy() for n in (cases[s, when].name, without(s)))
        assert row["difference"] == pytest.approx(sharpe(a) - sharpe(b)) == row["sharpe_with"] - row["sharpe_without"]
        assert row["n_obs"] == len(a) and row["low"] <= row["difference"] <= row["high"]
        ramp = study.ramps[promoted(s, when)]
        assert ramp.columns[0] == s and row["weight_first"] == pytest.approx(ramp.iloc[0, 0])
        assert ramp.iloc[0, 0] < ramp.iloc[20, 0]  # half of it on the first session


def test_sleeves_without_history_are_not_rehearsed(panel: Panel) -> None:
    s, when = panel.sleeve_ids[0], panel.dates[500]
    young = panel.targets[s].copy()
    young.iloc[:400] = np.nan
    found = rehearsal_cases(replace(panel, targets={**panel.targets, s: young}), [when])
    assert (s, when) not in found and len(found) == 3
    assert rehearsal_dates(panel.select(end=panel.dates[200]), 2) == ()


def test_page_and_run(study: SleeveStudy, panel: Panel, tmp_path: Path) -> None:
    page = sleeves_html(study, panel_facts(panel), {"run_id": "x"})
    check_page(page)
    assert page.count("<svg") == 6 and all(s in page for s in panel.sleeve_ids)
    assert "nan" not in page.lower().replace("finan", "")
    envelope = write_sleeves_run(study, panel_facts(panel), tmp_path, run_id="20260301T000001Z-000001", params={"draws": 200})
    assert envelope["report"] == "sleeves" and envelope["verdict"]["action"] == "none" and len(envelope["checks"]) == 8
    assert {c["source"] for c in envelope["checks"]} == {"house, informative"}
    stored = pd.read_parquet(tmp_path / "data" / "net_alone.parquet")
    np.testing.assert_array_equal(stored[panel.sleeve_ids[0]], study.alone.net()[panel.sleeve_ids[0]])


def test_every_case_is_another_trial(panel: Panel, tmp_path: Path) -> None:
    cases = study_cases(panel, rehearsal_dates(panel, 1))
    for case in cases:
        record_trials(str(tmp_path / "t.jsonl"), [CONFIG], case_panel(panel, case), "report sleeves")
    assert TrialLedger(tmp_path / "t.jsonl").count() == len(cases) == 9
