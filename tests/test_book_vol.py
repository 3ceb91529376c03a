"""Book volatility: matrix-free against dense, unknown symbols, gaps, the factor option."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.estimators.book_vol import AssetRisk, asset_risks, book_vol, book_vol_dense
from pil_research.estimators.covariance import ledoit_wolf
from pil_research.types import InputError


def panel(seed, t=120, m=30, gaps=0.0):
    rng = np.random.default_rng(seed)
    beta = rng.normal(size=(3, m))
    x = 0.005 * rng.standard_t(4, size=(t, 3)) @ beta + 0.01 * rng.standard_t(4, size=(t, m))
    x *= rng.uniform(0.2, 3.0, m)
    x[rng.random(x.shape) < gaps] = np.nan
    return x


@given(seed=st.integers(0, 2**32 - 1), m=st.integers(1, 300), t=st.integers(3, 130),
       h=st.sampled_from([None, 20.0, 60.0]))
@settings(max_examples=60, deadline=None)
def test_matrix_free_is_dense(seed, m, t, h):
    x = panel(seed, t, m)
    books = np.random.default_rng(seed).normal(size=(4, m))
    np.testing.assert_allclose(book_vol(x, books, half_life=h), book_vol_dense(x, books, half_life=h), rtol=1e-11)


@pytest.mark.parametrize("m", [50, 600])
def test_parts(m):
    x = panel(1, 120, m)
    risk = AssetRisk.from_window(x, half_life=60)
    cov, delta = ledoit_wolf(x, half_life=60)
    assert 0.01 < delta < 0.99 and risk.delta == pytest.approx(float(delta), abs=1e-11)
    np.testing.assert_allclose(risk.sd, np.sqrt(np.diag(cov)), rtol=1e-12)
    np.testing.assert_allclose(risk.covariance(), cov, rtol=1e-9, atol=1e-16)
    np.testing.assert_allclose(np.diag(risk.correlation()), 1.0, rtol=1e-12)
    books = np.random.default_rng(0).normal(size=(2, 3, m))
    np.testing.assert_allclose(risk.variance(books), np.vecdot(books @ cov, books), rtol=1e-11)
    np.testing.assert_allclose(risk.vol(books), np.sqrt(risk.variance(books)))
    np.testing.assert_allclose(risk.stressed_vol(books), np.abs(books) @ risk.sd, rtol=1e-12)
    assert (risk.stressed_vol(books) >= risk.vol(books)).all()
    np.testing.assert_allclose(risk.variance(books[0, 0]), risk.variance(books)[0, 0], rtol=1e-13)


def test_gaps_are_pairwise():
    x = panel(2, 120, 20, 0.05)
    risk = AssetRisk.from_window(x, half_life=60)
    cov, delta = ledoit_wolf(x, half_life=60)
    book = np.random.default_rng(0).normal(size=20)
    assert risk.delta == float(delta)
    np.testing.assert_allclose(risk.variance(book), book @ cov @ book, rtol=1e-12)
    np.testing.assert_allclose(book_vol(x, book, half_life=60), book_vol_dense(x, book, half_life=60), rtol=1e-13)


@pytest.mark.parametrize("gaps", [0.0, 0.05])
def test_unknown_symbols_add_nothing(gaps):
    x = panel(3, 120, 6, gaps)
    x[:95, 1] = np.nan  # 25 bars
    x[:, 4] = 0.001  # never moves
    risk = AssetRisk.from_window(x, half_life=60, min_obs=30)
    keep = [0, 2, 3, 5]
    assert risk.known.tolist() == [True, False, True, True, False, True]
    assert np.isnan(risk.sd[[1, 4]]).all() and risk.n_obs[1] <= 25
    book = np.array([1.0, 5.0, -1.0, 2.0, 5.0, 1.0])
    inner = AssetRisk.from_window(x[:, keep], half_life=60)
    np.testing.assert_allclose(risk.variance(book), inner.variance(book[keep]), rtol=1e-13)
    np.testing.assert_allclose(risk.stressed_vol(book), inner.stressed_vol(book[keep]), rtol=1e-13)
    assert np.isnan(risk.covariance()[1]).all() and np.isfinite(risk.covariance()[np.ix_(keep, keep)]).all()


def test_functions_do_not_hide_unknown_symbols():
    x = panel(4, 60, 3)
    x[:, 2] = np.nan
    np.testing.assert_array_equal(np.isnan(book_vol(x, [[1, 1, 0], [0, 0, 1]])), [False, True])
    np.testing.assert_array_equal(np.isnan(book_vol_dense(x, [[1, 1, 0], [0, 0, 1]])), [False, True])


def test_nothing_known():
    risk = AssetRisk.from_window(np.full((50, 3), np.nan))
    assert not risk.known.any() and risk.variance(np.ones((2, 3))).tolist() == [0.0, 0.0]
    assert risk.stressed_vol(np.ones(3)) == 0.0 and np.isnan(risk.covariance()).all()


def test_one_and_two_symbols():
    x = panel(5, 60, 2)
    assert book_vol(x[:, :1], [2.0]) == pytest.approx(2.0 * x[:, 0].std())
    assert book_vol(x, [1.0, 1.0]) == pytest.approx(x.sum(axis=1).std())


@given(seed=st.integers(0, 2**32 - 1), c=st.floats(-50, 50))
@settings(max_examples=40, deadline=None)
def test_volatility_scales_with_the_book(seed, c):
    x = panel(seed, 60, 8)
    book = np.random.default_rng(seed).normal(size=8)
    np.testing.assert_allclose(book_vol(x, c * book), abs(c) * book_vol(x, book), rtol=1e-10, atol=1e-16)


def test_a_zero_weight_symbol_of_no_data_changes_nothing():
    x = panel(6, 80, 5)
    wide = np.insert(x, 2, np.nan, axis=1)
    book = np.arange(1.0, 6.0)
    assert book_vol(wide, np.insert(book, 2, 0.0)) == pytest.approx(float(book_vol(x, book)), rel=1e-14)


@pytest.mark.parametrize("gaps", [0.0, 0.05])
def test_factor_model(gaps):
    x = panel(7, 60, 100, gaps)
    risk = AssetRisk.from_window(x, half_life=60, model="factor", n_factors=3)
    book = np.random.default_rng(0).normal(size=(2, 100))
    np.testing.assert_allclose(risk.variance(book), np.vecdot(book @ risk.covariance(), book), rtol=1e-11)
    np.testing.assert_allclose(risk.sd, np.sqrt(np.diag(risk.covariance())), rtol=1e-12)


@pytest.mark.parametrize(("returns", "options", "match"), [
    (np.zeros(5), {}, r"\(T, M\)"), (np.full((9, 2), np.inf), {}, "finite or NaN"),
    (np.zeros((9, 2)), {"model": "magic"}, "shrinkage or factor")])
def test_refusals(returns, options, match):
    with pytest.raises(InputError, match=match):
        AssetRisk.from_window(returns, **options)


def test_all_sessions_are_single_windows():
    rng = np.random.default_rng(8)
    x = 0.01 * (rng.normal(size=(260, 3)) @ rng.normal(size=(3, 9)) + rng.normal(size=(260, 9)))
    x[rng.random(x.shape) < 0.03] = np.nan
    x[:100, 2] = x[150:, 5] = np.nan
    x[120:230] = np.where(np.isnan(x[120:230]), 0.001, x[120:230])
    ends = [20, *range(90, 260)]
    for e, risk in zip(ends, asset_risks(x, ends, 60, min_overlap=20), strict=True):
        one = AssetRisk.from_window(x[max(e - 59, 0):e + 1], min_overlap=20)
        np.testing.assert_array_equal(risk.sd, one.sd)
        np.testing.assert_array_equal(risk.covariance(), one.covariance())
        assert (risk.delta, risk.mean_correlation, risk.repair) == (one.delta, one.mean_correlation, one.repair)


@pytest.mark.parametrize("shape", [(2,), (5, 2), (), (31,), (30, 1), (1,)])
@pytest.mark.parametrize("gaps", [0.0, 0.1])
def test_books_of_the_wrong_length_are_refused(shape, gaps):
    x = panel(3, gaps=gaps)
    risk = AssetRisk.from_window(x)
    for f in (lambda w: book_vol(x, w), lambda w: book_vol_dense(x, w), risk.vol, risk.variance, risk.stressed_vol):
        with pytest.raises(InputError, match="weights must be") as err:
            f(np.ones(shape))
        assert err.value.code == "BAD_SHAPE" and err.value.field == "weights"
        assert f(np.ones((2, 0, 30))).shape == (2, 0)
