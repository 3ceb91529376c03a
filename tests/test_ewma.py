"""EWMA weights and volatility: published numbers, masks, row-by-row parity, refusals."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.estimators.ewma import ewma_vol, ewma_weights, rolling_ewma_vol
from pil_research.types import InputError

# 30 daily returns and their annualised EWMA volatility by half-life, RiskMetrics (1996) conventions
RETURNS = [-0.00417, -0.00056, -0.02136, 0.0164, -0.01793, -0.00842, 0.00503, -0.01245, -0.01058, -0.00909, 0.00551,
           0.02292, 0.00042, -0.01118, 0.00539, -0.00596, -0.00019, 0.01175, -0.00748, 9e-05, -0.00878, -0.00156,
           0.00257, -0.00989, -0.00339, -0.00236, -0.00638, -0.01188, -0.01421, -0.00153]


@pytest.mark.parametrize(("half_life", "vol"), [(21, 0.15069253232559104), (63, 0.1566122166520087)])
def test_published_volatility(half_life, vol):
    assert ewma_vol(RETURNS, half_life) == pytest.approx(vol, abs=1e-10)


def test_shared_cases():
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is unset: no folder of published numbers to check against")
    cases = {c["id"]: c for c in json.loads((Path(folder) / "vol.json").read_text())["cases"]}
    case = cases["ewma-var-30"]
    for h, vol in case["expected"]["vol_annual"].items():
        assert ewma_vol(case["input"]["r"], float(h)) == pytest.approx(vol, abs=case["tolerance"]["abs"])


def test_riskmetrics_lambda_is_a_half_life():
    weights = ewma_weights(2, 11.202305583621158)
    assert weights[0] / weights[1] == pytest.approx(0.94, abs=1e-9)


@given(n=st.integers(1, 600), h=st.floats(0.1, 1e4))
@settings(max_examples=60, deadline=None)
def test_weights(n, h):
    w = ewma_weights(n, h)
    assert w.shape == (n,) and w.sum() == pytest.approx(1.0, abs=1e-12)
    assert (np.diff(w) >= 0.0).all()
    if n > h >= 1.0 and float(h).is_integer():
        assert w[-1 - int(h)] == pytest.approx(w[-1] / 2, rel=1e-12)


@pytest.mark.parametrize("h", [None, np.inf])
def test_no_half_life_is_equal_weights(h):
    np.testing.assert_allclose(ewma_weights(7, h), 1.0 / 7.0, rtol=1e-15)


def test_agrees_with_pandas():
    x = np.random.default_rng(0).normal(size=400)
    expected = np.sqrt(252 * (pd.Series(x) ** 2).ewm(halflife=42).mean().iloc[-1])
    assert ewma_vol(x, 42) == pytest.approx(expected, rel=1e-12)


def test_masked_bars_age_but_do_not_count():
    x = np.random.default_rng(1).normal(size=100)
    masked = x.copy()
    masked[[3, 50, 99]] = np.nan
    w = ewma_weights(504, 42)[-100:] * ~np.isnan(masked)
    expected = np.sqrt(252 * (w * np.nan_to_num(masked) ** 2).sum() / w.sum())
    assert ewma_vol(masked, 42) == pytest.approx(expected, rel=1e-13)


def test_trailing_mask_keeps_the_volatility():
    x = np.random.default_rng(2).normal(size=300)
    later = np.concatenate([x, np.full(150, np.nan)])
    assert ewma_vol(later, 42, window=1000) == pytest.approx(float(ewma_vol(x, 42, window=1000)), rel=1e-12)


def test_window_floor_and_minimum():
    x = np.concatenate([np.full(100, 9.0), np.full(504, 0.0)])
    assert ewma_vol(x, 42) == 0.0
    assert ewma_vol(x, 42, 0.005) == 0.005
    assert np.isnan(ewma_vol(x[:59], 42, min_obs=60)) and not np.isnan(ewma_vol(x[:60], 42, min_obs=60))
    assert np.isnan(ewma_vol(np.full(80, np.nan), 42))


@given(seed=st.integers(0, 2**32 - 1), h=st.sampled_from([5.0, 42.0, None]), window=st.sampled_from([20, 60]))
@settings(max_examples=25, deadline=None)
def test_rolling_rows_are_single_calls(seed, h, window):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(90, 3))
    x[rng.random(x.shape) < 0.2] = np.nan
    vol, n = rolling_ewma_vol(x, h, window=window, min_obs=5, floor=0.1)
    for t in range(len(x)):
        one = ewma_vol(x[:t + 1].T, h, 0.1, window=window, min_obs=5)
        np.testing.assert_array_equal(vol[t], one)
        np.testing.assert_array_equal(n[t], (~np.isnan(x[max(0, t + 1 - window):t + 1])).sum(axis=0))


def test_future_rows_change_nothing():
    x = np.random.default_rng(3).normal(size=(200, 2))
    other = x.copy()
    other[120:] *= 1e6
    other[150] = np.nan
    np.testing.assert_array_equal(rolling_ewma_vol(x, 42)[0][:120], rolling_ewma_vol(other, 42)[0][:120])


@pytest.mark.parametrize("call", [lambda: ewma_vol([0.0, np.inf], 42), lambda: rolling_ewma_vol([[0.0], [-np.inf]], 42)])
def test_infinite_returns_are_refused(call):
    with pytest.raises(InputError, match="finite or NaN") as caught:
        call()
    assert caught.value.code == "NON_FINITE"


@pytest.mark.parametrize("h", [0.0, -1.0, float("nan")])
def test_bad_half_life(h):
    with pytest.raises(InputError, match="half_life must be a positive"):
        ewma_weights(5, h)


def test_no_bars():
    with pytest.raises(InputError, match="at least 1 bar"):
        ewma_weights(0, 5.0)


def test_inputs_are_not_changed():
    x = np.array([[0.1, np.nan], [0.2, 0.3]])
    before = x.copy()
    ewma_vol(x, 2)
    rolling_ewma_vol(x, 2)
    np.testing.assert_array_equal(x, before)


def test_a_table_has_time_on_its_rows():
    x = np.random.default_rng(0).normal(0.0, 0.01, (90, 4))
    x[::7, 2] = np.nan
    frame = pd.DataFrame(x, index=pd.date_range("2024-01-01", periods=90), columns=list("abcd"))
    got = ewma_vol(frame, 42, min_obs=60)
    assert got.shape == (4,)
    np.testing.assert_array_equal(got, ewma_vol(x.T, 42, min_obs=60))
    np.testing.assert_array_equal(got, rolling_ewma_vol(frame, 42, min_obs=60)[0][-1])
    assert ewma_vol(frame["b"], 42) == ewma_vol(x[:, 1], 42)
