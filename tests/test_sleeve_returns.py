"""Sleeve returns: missing quotes, gaps, flat bars, one row against many, the tracker."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.estimators.sleeve_returns import (
    StrategyReturnTracker,
    estimation_returns,
    gap_bars_of,
    sleeve_return_matrix,
    sleeve_returns_row,
)
from pil_research.types import InputError


def history(seed, t=60, k=3, m=5, gaps=0.1):
    rng = np.random.default_rng(seed)
    w, r = rng.normal(size=(t, k, m)), 0.01 * rng.normal(size=(t, m))
    r[rng.random(r.shape) < gaps] = np.nan
    w[rng.random((t, k)) < 0.1] = 0.0
    w[rng.random((t, k)) < 0.1] = np.nan
    return w, r


def by_hand(w, r, coverage):
    t, k, m = w.shape
    raw, values, flat = np.full((t, k), np.nan), np.full((t, k), np.nan), np.zeros((t, k), bool)
    for s in range(k):
        held, since = None, np.full(m, -1)
        for d in range(t):
            spans = np.where(since >= 0, since + 1, 1)
            if held is not None:
                gross = np.abs(held).sum()
                here = ~np.isnan(r[d])
                flat[d, s] = gross == 0.0
                covered = np.abs(held[here]).sum()
                if gross == 0.0:
                    raw[d, s] = 0.0
                elif covered >= coverage * gross and covered > 0:
                    raw[d, s] = held[here] @ r[d, here] / covered
                    values[d, s] = held[here] @ (r[d, here] / np.sqrt(spans[here])) / covered
            since = np.where(~np.isnan(r[d]), 0, np.where(since >= 0, since + 1, -1))
            if not np.isnan(w[d, s]).any():
                held = w[d, s]
    return raw, values, flat


@given(seed=st.integers(0, 2**32 - 1), coverage=st.sampled_from([0.5, 0.95]))
@settings(max_examples=30, deadline=None)
def test_matrix_by_hand(seed, coverage):
    w, r = history(seed)
    ours = sleeve_return_matrix(w, r, coverage=coverage)
    raw, values, flat = by_hand(w, r, coverage)
    np.testing.assert_allclose(ours.raw, raw, atol=1e-15)
    np.testing.assert_allclose(ours.values, values, atol=1e-15)
    np.testing.assert_array_equal(ours.flat, flat)


def test_row_is_matrix_to_the_last_bit():
    w, r = history(1, t=300, gaps=0.0)
    w = np.nan_to_num(w)
    whole = sleeve_return_matrix(w, r)
    for t in (1, 57, 299):
        row = sleeve_returns_row(w[t - 1], r[t])
        np.testing.assert_array_equal(whole.raw[t], row.raw)
        np.testing.assert_array_equal(whole.values[t], row.values)


@given(seed=st.integers(0, 2**32 - 1), c=st.floats(1e-6, 1e6))
@settings(max_examples=30, deadline=None)
def test_scale_of_a_target_does_not_matter(seed, c):
    w, r = history(seed, gaps=0.0)
    np.testing.assert_allclose(sleeve_return_matrix(w * c, r).raw, sleeve_return_matrix(w, r).raw, rtol=1e-10,
                               atol=1e-15)


def test_coverage():
    w = [[0.95, 0.05], [0.94, 0.06]]
    bar = sleeve_returns_row(w, [0.01, np.nan])
    assert bar.raw[0] == pytest.approx(0.01) and np.isnan(bar.raw[1])  # exactly 95 % is enough
    assert np.isnan(sleeve_returns_row([[1.0, -1.0]], [np.nan, np.nan], coverage=0.0).raw[0])


def test_missing_is_never_zero_and_never_lowers_risk():
    w, r = np.ones((500, 1, 4)), 0.01 * np.random.default_rng(0).normal(size=(500, 4))
    holes = r.copy()
    holes[::3, 0] = np.nan
    sd = np.nanstd(sleeve_return_matrix(w, r).values)
    assert np.nanstd(sleeve_return_matrix(w, holes).values) > 0.9 * sd
    assert np.isnan(sleeve_return_matrix(w, holes).raw[3, 0])


def test_flat_is_masked_for_estimation_only():
    bar = sleeve_returns_row([[0.0, 0.0]], [0.01, np.nan])
    assert bar.flat[0] and bar.raw[0] == 0.0 and np.isnan(bar.values[0])


def test_gaps():
    x = np.array([[np.nan, 1.0], [np.nan, np.nan], [1.0, 1.0], [1.0, np.nan], [np.nan, np.nan], [1.0, 1.0]])
    np.testing.assert_array_equal(gap_bars_of(x), [[1, 1], [1, 1], [1, 2], [1, 1], [1, 1], [2, 3]])
    np.testing.assert_allclose(estimation_returns(x)[5], [1 / np.sqrt(2), 1 / np.sqrt(3)])
    bars = sleeve_return_matrix(np.ones((6, 1, 2)), x, coverage=0.4)
    np.testing.assert_array_equal(bars.gap.ravel(), [1, 1, 2, 1, 1, 3])
    assert gap_bars_of(np.empty((0, 2))).shape == (0, 2)


def test_future_changes_nothing():
    w, r = history(4, t=100)
    w2, r2 = w.copy(), r.copy()
    w2[60:], r2[61:] = 3.0, np.nan
    a, b = sleeve_return_matrix(w, r), sleeve_return_matrix(w2, r2)
    np.testing.assert_array_equal(a.raw[:61], b.raw[:61])
    np.testing.assert_array_equal(a.values[:61], b.values[:61])


def frames(seed, t=80):
    w, r = history(seed, t=t, k=2, m=4)
    dates = pd.bdate_range("2024-01-01", periods=t)
    cols = ["D", "B", "A", "C"]
    books = {s: pd.DataFrame(w[:, i], dates, cols) for i, s in enumerate(("trend", "carry"))}
    return books, pd.DataFrame(r, dates, cols), w, r


def test_tracker_grows_to_the_same_history():
    books, returns, w, r = frames(5)
    whole = StrategyReturnTracker.from_history(books, returns)
    part = StrategyReturnTracker.from_history({s: b.iloc[:50] for s, b in books.items()}, returns.iloc[:50])
    for d in returns.index[50:]:
        part = part.append(d, returns.loc[d], {s: b.loc[d] for s, b in books.items()})
    pd.testing.assert_frame_equal(part.returns, whole.returns, check_freq=False, check_exact=True)
    pd.testing.assert_frame_equal(part.estimation_returns, whole.estimation_returns, check_freq=False,
                                  check_exact=True)
    pd.testing.assert_frame_equal(part.net(0.001), whole.net(0.001), check_freq=False, check_exact=True)
    assert list(whole.returns) == ["carry", "trend"]
    expected = sleeve_return_matrix(w, r).raw[:, ::-1]
    np.testing.assert_allclose(whole.returns, expected, atol=1e-15)


def test_tracker_costs():
    dates = pd.bdate_range("2024-01-01", periods=4)
    book = pd.DataFrame([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]], dates, ["A", "B"])
    returns = pd.DataFrame(0.0, dates, ["A", "B"])
    tracker = StrategyReturnTracker.from_history({"s": book}, returns)
    paid = (tracker.returns - tracker.net(pd.Series({"A": 0.01, "B": 0.02})))["s"]
    np.testing.assert_allclose(paid.iloc[1:], [0.01, 0.0, 0.03], atol=1e-15)


def test_tracker_refusals():
    books, returns, _, _ = frames(6)
    tracker = StrategyReturnTracker.from_history(books, returns)
    late = returns.index[-1] + pd.Timedelta(days=1)
    with pytest.raises(InputError, match="date must be after"):
        tracker.append(returns.index[0], returns.iloc[0], {})
    with pytest.raises(InputError, match="those of the tracker"):
        tracker.append(late, pd.Series({"Z": 0.1}), {})
    with pytest.raises(InputError, match="those of the tracker"):
        tracker.append(late, returns.iloc[0], {"carry2": returns.iloc[0]})
    text = pd.Series(dict.fromkeys(returns.columns, "much"))
    for odd, code in ((text, "BAD_TYPE"), (returns.iloc[0] * 0.0 + np.inf, "NON_FINITE")):
        for row, targets in ((odd, {}), (returns.iloc[0], {tracker.ids[0]: odd})):
            with pytest.raises(InputError) as caught:
                tracker.append(late, row, targets)
            assert caught.value.code == code
    with pytest.raises(InputError, match="increasing DatetimeIndex"):
        StrategyReturnTracker.from_history(books, returns.iloc[::-1])
    with pytest.raises(InputError, match="sleeve id"):
        StrategyReturnTracker.from_history({"a b": books["carry"]}, returns)
    with pytest.raises(InputError, match="costs must be"):
        tracker.net(-0.1)


@pytest.mark.parametrize(("w", "r", "match"), [
    (np.ones((5, 2, 3)), np.ones((5, 2)), "targets must be"), (np.ones((5, 2, 3)), np.full((5, 3), np.inf), "finite"),
    (np.full((5, 2, 3), np.inf), np.ones((5, 3)), "finite")])
def test_refusals(w, r, match):
    with pytest.raises(InputError, match=match):
        sleeve_return_matrix(w, r)


@pytest.mark.parametrize(("change", "code", "field"), [
    (lambda w, r: ({}, r), "BAD_SHAPE", "targets"), (lambda w, r: (None, r), "BAD_SHAPE", "targets"),
    (lambda w, r: (w, r.to_numpy()), "BAD_TYPE", "asset_returns"), (lambda w, r: (w, r["a"]), "BAD_TYPE", "asset_returns"),
    (lambda w, r: ({"s": w["s"].to_numpy()}, r), "BAD_TYPE", "targets['s']"),
    (lambda w, r: (w, r.iloc[:0]), "BAD_SHAPE", "asset_returns"),
    (lambda w, r: (w, r.iloc[::-1]), "BAD_INDEX", "asset_returns.index"),
    (lambda w, r: (w, r[["a", "a", "b"]]), "DUPLICATE_INDEX", "asset_returns"),
    (lambda w, r: ({"s": w["s"][["a", "a"]]}, r), "DUPLICATE_INDEX", "targets['s']"),
    (lambda w, r: ({"s": pd.concat([w["s"], w["s"]])}, r), "DUPLICATE_INDEX", "targets['s']"),
    (lambda w, r: ({"s": w["s"].astype(object).replace(1.0, "x")}, r), "BAD_TYPE", "targets"),
    (lambda w, r: (w, r.astype(object).replace(0.01, "x")), "BAD_TYPE", "asset_returns"),
    (lambda w, r: (w, r.rename(columns={"b": 7})), "BAD_NAME", "asset_returns")])
def test_a_history_that_is_none_is_refused(change, code, field):
    days = pd.date_range("2024-01-01", periods=5)
    targets = {"s": pd.DataFrame(1.0, index=days, columns=["a", "b"])}
    returns = pd.DataFrame(0.01, index=days, columns=["a", "b"])
    w, r = change(targets, returns)
    with pytest.raises(InputError) as err:
        StrategyReturnTracker.from_history(w, r)
    assert (err.value.code, err.value.field) == (code, field)


@pytest.mark.parametrize(("change", "code"), [
    (lambda d, r, t: ("2024-02-01", r, t), "BAD_TIME"), (lambda d, r, t: (pd.NaT, r, t), "BAD_TIME"),
    (lambda d, r, t: (d.tz_localize("UTC"), r, t), "BAD_TIME"), (lambda d, r, t: (d, r.to_numpy(), t), "BAD_TYPE"),
    (lambda d, r, t: (d, pd.concat([r, r]), t), "BAD_TYPE"), (lambda d, r, t: (d, r, {"s": [1.0, 0.0]}), "BAD_TYPE")])
def test_a_bar_that_is_none_is_refused(change, code):
    days = pd.date_range("2024-01-01", periods=5)
    tracker = StrategyReturnTracker.from_history({"s": pd.DataFrame(1.0, index=days, columns=["a", "b"])},
                                                 pd.DataFrame(0.01, index=days, columns=["a", "b"]))
    row = pd.Series({"a": 0.01, "b": 0.0})
    with pytest.raises(InputError) as err:
        tracker.append(*change(pd.Timestamp("2024-02-01"), row, {"s": row}))
    assert err.value.code == code
    assert len(tracker.append(pd.Timestamp("2024-02-01"), row, {"s": row}).dates) == 6
