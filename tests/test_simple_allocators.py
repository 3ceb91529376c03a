"""Inverse volatility, inverse variance, 1/N, long-only minimum variance, and the shared checks."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from pil_research.allocators import (
    check_covariance,
    correlation_of,
    equal_weight,
    inverse_variance,
    inverse_vol,
    min_variance,
)
from pil_research.allocators.minvar import min_variance_rows
from pil_research.allocators.simple import FAULTS, covariance_faults, inverse_vol_rows
from pil_research.types import InputError


def spd(rng, k):
    x = rng.standard_normal((k, 3 * k + 2)) + rng.uniform(-1, 1) * rng.standard_normal((1, 3 * k + 2))
    sd = np.exp(0.7 * rng.normal(size=k)) * 0.01
    return (x @ x.T) / x.shape[1] * np.outer(sd, sd)


def test_diagonal_methods_have_closed_forms():
    cov = np.array([[0.01, 0.005], [0.005, 0.09]])
    np.testing.assert_allclose(inverse_vol(cov), [0.75, 0.25], rtol=1e-15)
    np.testing.assert_allclose(inverse_variance(cov), [0.9, 0.1], rtol=1e-15)
    np.testing.assert_allclose(inverse_vol_rows(cov[None])[0], inverse_vol(cov), rtol=1e-15)
    assert equal_weight(np.full((4, 3, 3), np.nan)).tolist() == [[1 / 3] * 3] * 4


def test_diagonal_methods_read_the_diagonal_only():
    cov = np.array([[0.01, np.nan], [7.0, 0.09]])
    np.testing.assert_allclose(inverse_vol(cov), [0.75, 0.25])
    for bad, code in ((np.nan, "NON_FINITE"), (np.inf, "NON_FINITE"), (0.0, "NON_POSITIVE_VARIANCE")):
        stack = np.array([np.eye(2), [[bad, 0.0], [0.0, 1.0]]])
        with pytest.raises(InputError, match="cov must") as error:
            inverse_vol(stack)
        assert error.value.code == code and error.value.subject == "row 1"
        assert np.isnan(inverse_vol_rows(stack)).all(-1).tolist() == [False, True]


def test_faults_are_named_row_by_row():
    stack = np.array([np.eye(2), [[1, np.nan], [np.nan, 1]], [[0, 0], [0, 1]], [[1, 0.5], [0.4, 1]], np.eye(2) * 1e-30])
    assert [FAULTS[i] for i in covariance_faults(stack)] == [
        "ok", "NON_FINITE", "NON_POSITIVE_VARIANCE", "NOT_SYMMETRIC", "ok"]
    with pytest.raises(InputError) as error:
        check_covariance(stack)
    assert (error.value.code, error.value.subject) == ("NON_FINITE", "row 1")


def test_asymmetry_of_the_last_bit_is_allowed():
    cov = np.array([[0.04, 0.006], [0.006 * (1 + 1e-13), 0.01]])
    stack, lead = check_covariance(cov)
    assert stack.shape == (1, 2, 2) and lead == ()
    rho = correlation_of(cov)
    assert rho[0, 1] == rho[1, 0]


def test_correlation_is_rounded_clipped_and_has_a_unit_diagonal():
    cov = np.array([[1.0, 1.0000001, 0.3], [1.0000001, 1.0, 1 / 3], [0.3, 1 / 3, 1.0]])
    rho = correlation_of(np.array([cov, cov]))[1]
    assert rho[0, 1] == 1.0 and rho[1, 2] == 0.333333333333 and (np.diag(rho) == 1.0).all()
    assert correlation_of(cov, None)[1, 2] == pytest.approx(1 / 3, rel=1e-15)


def _reference(cov, upper):
    k = len(cov)
    scale = np.trace(cov) / k
    best = minimize(lambda a: a @ cov @ a / scale, np.full(k, 1 / k), jac=lambda a: 2 * cov @ a / scale,
                    bounds=[(0.0, u) for u in upper], method="SLSQP",
                    constraints={"type": "eq", "fun": lambda a: a.sum() - 1, "jac": lambda a: np.ones(k)},
                    options={"ftol": 1e-15, "maxiter": 500})
    return best.x


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(1.0, 4.0))
def test_minimum_variance_meets_its_conditions(k, seed, slack):
    """Karush-Kuhn-Tucker: one common gradient on free names, not below it at 0, not above it at the bound."""
    rng = np.random.default_rng(seed)
    cov = spd(rng, k)
    upper = np.minimum(slack * rng.uniform(0.5, 1.5, k) / k, 1.0)
    upper = upper if upper.sum() >= 1 else np.minimum(upper / upper.sum() * 1.01, 1.0)
    w = min_variance(cov, upper=upper)
    assert (w >= 0).all() and (w <= upper + 1e-12).all() and abs(w.sum() - 1) < 1e-12
    gradient = cov @ w / (w @ cov @ w)
    free = (w > 1e-10) & (w < upper - 1e-10)
    level = gradient[free].mean() if free.any() else np.max(gradient[w >= upper - 1e-10])
    assert np.abs(gradient[free] - level).max(initial=0.0) < 1e-8
    assert (gradient[w <= 1e-10] >= level - 1e-8).all()
    assert (gradient[w >= upper - 1e-10] <= level + 1e-8).all()


def test_minimum_variance_agrees_with_a_general_solver():
    rng = np.random.default_rng(3)
    for k in (2, 3, 5, 8):
        cov, upper = spd(rng, k), np.full(k, min(1.0, 2.0 / k))
        ours, peer = min_variance(cov, upper=2.0 / k), _reference(cov, upper)
        assert ours @ cov @ ours <= peer @ cov @ peer * (1 + 1e-9)
        np.testing.assert_allclose(ours, peer, rtol=0, atol=1e-4)


def test_minimum_variance_closed_forms_and_stacks():
    np.testing.assert_allclose(min_variance(np.diag([1.0, 2.0, 4.0])), np.array([4, 2, 1]) / 7, rtol=1e-14)
    np.testing.assert_allclose(min_variance([[1.0, 0.9], [0.9, 1.0]]), [0.5, 0.5])
    assert min_variance([[3.0]]).tolist() == [1.0]
    stack = np.array([spd(np.random.default_rng(i), 6) for i in range(4)])
    np.testing.assert_array_equal(min_variance(stack), [min_variance(c) for c in stack])
    np.testing.assert_allclose(min_variance(stack, upper=1 / 6), np.full((4, 6), 1 / 6), rtol=1e-12)


def test_minimum_variance_of_clones_splits_evenly():
    x = np.random.default_rng(0).standard_normal((300, 2))
    w = min_variance(np.cov(x[:, [0, 1, 0]].T))
    assert w[0] == pytest.approx(w[2], abs=1e-6)


def test_minimum_variance_refuses_what_has_no_answer():
    with pytest.raises(InputError, match="sum to at least 1") as error:
        min_variance(np.eye(4), upper=0.2)
    assert error.value.code == "INFEASIBLE"
    with pytest.raises(InputError) as error:
        min_variance(1.9 * np.eye(3) - 0.9)
    assert error.value.code == "NOT_PSD"
    assert np.isnan(min_variance_rows(np.eye(4)[None], upper=np.nan)).all()


@pytest.mark.parametrize(("variances", "upper", "expected"), [
    ([1.0, 1e6, 1e12], None, np.array([1.0, 1e-6, 1e-12]) / (1.0 + 1e-6 + 1e-12)),
    ([1.0, 1e12, 1e24], None, np.array([1.0, 1e-12, 1e-24])),
    ([1e-20, 1.0, 1e20, 1e20], None, np.array([1.0, 1e-20, 1e-40, 1e-40])),
    ([1.0, 1e6, 1e12], 0.5, np.array([0.5, 0.5 / (1 + 1e-6), 0.5e-6 / (1 + 1e-6)])),
    ([1.0, 1e9], None, np.array([1.0, 1e-9]) / (1.0 + 1e-9))])
def test_minimum_variance_where_volatilities_lie_far_apart(variances, upper, expected):
    np.testing.assert_allclose(min_variance(np.diag(variances), upper=upper), expected, rtol=1e-12)
    order = np.arange(len(variances))[::-1]
    np.testing.assert_allclose(min_variance(np.diag(variances)[order][:, order], upper=upper), expected[order], rtol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 7), st.integers(5, 18), st.integers(0, 10_000))
def test_far_apart_is_optimal_or_declined(k, decades, seed):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((int(rng.integers(2, 3 * k)), k)) + rng.choice([0.0, 1.0, 3.0]) * rng.standard_normal((1, k))
    sd = 10.0 ** rng.uniform(-decades, 0, k)
    cov = (x.T @ x + 1e-3 * np.eye(k)) * sd[:, None] * sd
    cov[0, 0] = max(cov[0, 0], 1e9 * cov.diagonal()[1:].min())  # surely far apart
    cov = 0.5 * (cov + cov.T)
    upper = np.maximum(rng.uniform(0.0, 1.0, k), 1.2 / k)
    w = min_variance_rows(cov[None], upper)[0]
    if np.isnan(w).any():
        with pytest.raises(InputError) as err:
            min_variance(cov, upper=upper)
        assert err.value.code == "NO_SOLUTION"
        return
    gradient, slack = cov @ w, 1e-8 * (np.abs(cov) @ w)
    assert w.sum() == pytest.approx(1.0, abs=1e-12) and (w >= 0.0).all() and (w <= upper * (1 + 1e-12)).all()
    assert (gradient - slack)[w > 0.0].max() <= (gradient + slack)[w < upper].min(initial=np.inf)


def test_clones_far_below_the_rest_share():
    w = min_variance(np.diag([1.0, 1.0, 1e14]) + np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose(w, [0.5, 0.5, 1e-14], rtol=1e-9)


def test_what_minimum_variance_cannot_compare_is_declined():
    far = np.diag([1e-300, 1.0, 1e300])  # the last weight is 1e-600
    assert np.isnan(min_variance_rows(far[None])).all()
    with pytest.raises(InputError, match="so far apart") as err:
        min_variance(np.stack([np.eye(3), far]))
    assert (err.value.code, err.value.subject) == ("NO_SOLUTION", "row 1")


@pytest.mark.parametrize(("upper", "code"), [
    ([0.5, 0.5], "SHAPE"), (np.ones((2, 4)), "SHAPE"), (np.ones((4, 1)), "SHAPE"), ([2.0, -1.0, 1.0, 1.0], "INFEASIBLE"),
    (0.2, "INFEASIBLE"), (np.nan, "INFEASIBLE"), ([1.0, np.nan, 1.0, 1.0], "INFEASIBLE")])
def test_bounds_that_fit_no_book_are_refused(upper, code):
    with pytest.raises(InputError, match="upper must") as err:
        min_variance(np.eye(4), upper=upper)
    assert err.value.code == code and err.value.field == "upper"
    assert min_variance(np.eye(4), upper=[0.5]).tolist() == [0.25] * 4
