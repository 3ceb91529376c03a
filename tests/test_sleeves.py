"""Reference sleeves: point in time, unit gross, dead feeds, and the rules against slow loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.research import sleeves as s
from pil_research.types import InputError

CLASSES = ("Equities", "FX", "Energy", "Metals")


def market(n_days: int = 900, n_symbols: int = 16, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    common = rng.normal(0.0, 0.010, (n_days, len(CLASSES)))
    group = np.arange(n_symbols) % len(CLASSES)
    values = common[:, group] + rng.normal(0.0003, 0.008, (n_days, n_symbols))
    values[rng.random(values.shape) < 0.02] = np.nan
    dates = pd.bdate_range("2015-01-01", periods=n_days, name="date")
    symbols = [f"M{i:02d}" for i in range(n_symbols)]
    return (pd.DataFrame(values, index=dates, columns=symbols),
            pd.DataFrame({"asset_class": [CLASSES[g] for g in group]}, index=symbols))


RETURNS, INFO = market(1700)
TARGETS, TABLE = s.reference_sleeves(RETURNS, INFO)


def test_there_are_nine_and_they_are_described() -> None:
    assert sorted(TARGETS) == sorted(s.REFERENCE_SLEEVES) == list(TABLE.index)
    assert set(TABLE["role"]) <= {"defensive", "cyclical", "neutral"}
    assert not any("carry" in d or "premium" in d for d in TABLE.index)


@pytest.mark.parametrize("name", sorted(s.REFERENCE_SLEEVES))
def test_rows_are_unit_gross_flat_or_absent(name: str) -> None:
    weights = TARGETS[name].to_numpy()
    gross = np.abs(weights).sum(axis=1)
    absent = np.isnan(gross)
    assert np.all(np.isnan(weights[absent]))
    assert np.all(np.isclose(gross[~absent], 1.0, atol=1e-12) | (gross[~absent] == 0.0))
    assert not np.any(np.diff(absent.astype(int)) > 0)  # once started, never absent again


@pytest.mark.parametrize("cut", [400, 777, 1500])
def test_nothing_after_the_row_is_used(cut: int) -> None:
    changed = RETURNS.copy()
    rng = np.random.default_rng(cut)
    changed.iloc[cut + 1:] = rng.normal(0.0, 0.05, changed.iloc[cut + 1:].shape)
    changed.iloc[cut + 3:, 0] = np.nan
    after, _ = s.reference_sleeves(changed, INFO)
    short, _ = s.reference_sleeves(RETURNS.iloc[: cut + 1], INFO)
    for name, weights in TARGETS.items():
        before = weights.iloc[: cut + 1].to_numpy()
        assert np.array_equal(before, after[name].iloc[: cut + 1].to_numpy(), equal_nan=True), name
        if name in short:
            assert np.array_equal(before, short[name].to_numpy(), equal_nan=True), name
        else:
            assert np.all(np.isnan(before)), name


def test_dead_feed_leaves_every_sleeve() -> None:
    dead = RETURNS.copy()
    dead.iloc[1200:, 3] = np.nan
    targets, _ = s.reference_sleeves(dead, INFO)
    for name, weights in targets.items():
        tail = weights.iloc[1200 + 5 + 25:, 3].to_numpy()  # five stale bars, then at most a month to the rebalance
        assert not np.any(np.abs(tail) > 0.0), name


def test_trend_against_a_slow_loop() -> None:
    values, dates = RETURNS.to_numpy(), pd.DatetimeIndex(RETURNS.index)
    t = next(i for i in range(800, 900) if s.first_of_week(dates)[i])
    level = np.cumsum(np.log1p(np.nan_to_num(values)), axis=0)
    score = np.mean([np.sign(level[t] - level[t - k]) for k in (21, 63, 252)], axis=0)
    sigma = s.ewma_sigma(values)[t]
    gross_by_class = {c: np.abs(score[(INFO["asset_class"] == c).to_numpy()]).sum() for c in CLASSES}
    weights = score / INFO["asset_class"].map(gross_by_class).to_numpy() / sigma
    expected = weights / np.abs(weights).sum()
    np.testing.assert_allclose(TARGETS["trend"].iloc[t].to_numpy(), expected, atol=1e-14)


def test_long_risk_is_long_and_gives_classes_equal_risk() -> None:
    t = 1000
    weights = TARGETS["long_risk"].iloc[t].to_numpy()
    held = next(i for i in range(t, 0, -1) if s.first_of_week(pd.DatetimeIndex(RETURNS.index))[i])
    risk = pd.Series(weights * s.ewma_sigma(RETURNS.to_numpy())[held]).groupby(INFO["asset_class"].to_numpy()).sum()
    assert (weights > 0.0).all()
    np.testing.assert_allclose(risk / risk.sum(), 0.25, atol=1e-12)


def test_ranked_sleeves_have_no_net_risk_in_a_class() -> None:
    signal = np.random.default_rng(1).normal(size=(5, len(INFO)))
    signal[2, :4] = np.nan
    scores = s.centred_rank(signal, INFO["asset_class"])
    totals = pd.DataFrame(scores.T).groupby(INFO["asset_class"].to_numpy()).sum()
    np.testing.assert_allclose(totals, 0.0, atol=1e-12)
    assert np.abs(scores).max() <= 1.0 and np.all(scores[2, :4] == 0.0)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_rank_ignores_monotone_rescaling(seed: int, scale: float) -> None:
    signal = np.random.default_rng(seed).normal(size=(3, len(INFO)))
    np.testing.assert_array_equal(s.centred_rank(signal, INFO["asset_class"]),
                                  s.centred_rank(np.exp(scale * 0.01 * signal), INFO["asset_class"]))


def test_low_beta_legs_are_beta_neutral() -> None:
    rng = np.random.default_rng(2)
    score, beta = rng.normal(size=(4, 6)), rng.uniform(0.3, 1.8, (4, 6))
    legs = s._beta_neutral(score, beta)
    np.testing.assert_allclose((legs * beta).sum(axis=1), 0.0, atol=1e-12)
    np.testing.assert_allclose((np.maximum(legs, 0.0) * beta).sum(axis=1), 1.0, atol=1e-12)


def test_rolling_beta_equals_regression() -> None:
    rng = np.random.default_rng(3)
    common = rng.normal(0.0, 0.01, 400)
    own = 1.4 * common[:, None] + rng.normal(0.0, 0.01, (400, 1))
    x = pd.Series(own[:, 0]).rolling(3).sum().to_numpy()[-252:]
    y = pd.Series(common).rolling(3).sum().to_numpy()[-252:]
    slope = np.polyfit(y, x, 1)[0]
    np.testing.assert_allclose(s.rolling_beta(own, common)[-1, 0], 0.6 * slope + 0.4, atol=1e-10)


def test_rolling_correlation_equals_numpy() -> None:
    rng = np.random.default_rng(4)
    factor = rng.normal(0.0, 0.01, 900)
    own = 0.5 * factor[:, None] + rng.normal(0.0, 0.01, (900, 2))
    x = pd.DataFrame(own).rolling(5).sum().to_numpy()[-756:, 1]
    y = pd.Series(factor).rolling(5).sum().to_numpy()[-756:]
    np.testing.assert_allclose(s.rolling_correlation(own, factor)[-1, 1], np.corrcoef(x, y)[0, 1], atol=1e-10)


def test_seasonal_signal_by_hand() -> None:
    dates = pd.bdate_range("2000-01-03", "2007-12-31")
    values = np.where(pd.Series(dates.month).to_numpy() == 6, 0.001, -0.0001)[:, None]
    signal = s.same_month_mean(values, dates)
    june = np.flatnonzero((dates.month == 6) & (dates.year == 2005))
    lengths = [int(((dates.month == 6) & (dates.year == y)).sum()) for y in range(2000, 2005)]
    np.testing.assert_allclose(signal[june, 0], np.mean(lengths) * np.log1p(0.001), rtol=1e-12)
    assert np.all(np.isnan(signal[(dates.month == 6) & (dates.year == 2004)]))


def test_pairs_finds_the_twins_and_bets_on_convergence() -> None:
    rng = np.random.default_rng(5)
    n = 500
    base = rng.normal(0.0, 0.01, n)
    values = np.column_stack([base + rng.normal(0.0, 0.001, n), base + rng.normal(0.0, 0.001, n),
                              rng.normal(0.0, 0.01, n)])
    values[400:440, 0] += 0.003  # the first twin runs away
    classes = pd.Series(["FX"] * 3)
    assert s.nearest_pairs(values[:252], classes) == [(0, 1)]
    weights = s.pairs(values, classes, pd.bdate_range("2020-01-01", periods=n))
    assert weights[445, 0] < 0.0 < weights[445, 1] and weights[445, 2] == 0.0


def test_first_of_week_and_month() -> None:
    dates = pd.DatetimeIndex(["2024-03-28", "2024-04-02", "2024-04-03", "2024-04-08"])
    assert s.first_of_week(dates).tolist() == [True, True, False, True]
    assert s.first_of_month(dates).tolist() == [True, True, False, False]


def test_sleeve_facts_turnover_of_a_flip_every_day() -> None:
    dates = pd.bdate_range("2024-01-01", periods=200)
    returns = pd.DataFrame(np.zeros((200, 1)) + 1e-9, index=dates, columns=["A"])
    weights = pd.DataFrame(np.where(np.arange(200) % 2 == 0, 1.0, -1.0)[:, None], index=dates, columns=["A"])
    facts = s.sleeve_facts({"flip": weights}, returns)
    assert float(facts.loc["flip", "turnover"]) == pytest.approx(252.0)


def test_errors_name_the_cause() -> None:
    with pytest.raises(InputError, match="no row for") as caught:
        s.reference_sleeves(RETURNS, INFO.drop("M00"))
    assert caught.value.code == "UNKNOWN_SYMBOL"
    with pytest.raises(InputError, match="252 quoted bars") as caught:
        s.reference_sleeves(RETURNS.iloc[:100], INFO)
    assert caught.value.code == "TOO_SHORT"
