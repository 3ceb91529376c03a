"""Compiled allocators against numpy: the same trees, the same weights, the same refusals, and a record of who answered."""
from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from pil_research import accel
from pil_research.allocators import allocate_batch, erc, hrp
from pil_research.allocators.erc import erc_rows, risk_contributions
from pil_research.allocators.hrp import hrp_rows
from pil_research.allocators.window import window_weights
from pil_research.engine import NUMPY, answer, engine, install
from pil_research.estimators.covariance import rolling_covariance, rolling_shrunk_covariance, sample_covariance
from pil_research.types import ConfigError, InputError

needs_numba = pytest.mark.skipif(not accel.available(), reason="numba is not installed")


@pytest.fixture
def compiled() -> Iterator[None]:
    accel.use(True)
    yield
    accel.use(False)


def draw(rng: np.random.Generator, k: int, n: int = 30) -> np.ndarray:
    """A stack of covariances with very different volatilities."""
    x = rng.standard_normal((n, 4 * k + 8, k)) + rng.uniform(0.0, 1.5, (n, 1, 1)) * rng.standard_normal((n, 4 * k + 8, 1))
    x *= np.exp(rng.uniform(-3.0, 3.0, (n, 1, k)))
    cov = np.einsum("nti,ntj->nij", x, x) / x.shape[1]
    return 0.5 * (cov + cov.swapaxes(1, 2))


def both(call: object) -> tuple[np.ndarray, np.ndarray]:
    accel.use(False)
    plain = call()  # type: ignore[operator]
    accel.use(True)
    try:
        return plain, call()  # type: ignore[operator]
    finally:
        accel.use(False)


@needs_numba
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 12, 25, 40])
@pytest.mark.parametrize("options", [{}, {"variant": "paper"}, {"leaf_order": False}], ids=str)
def test_hrp_equals_numpy(k: int, options: dict[str, object]) -> None:
    stack = draw(np.random.default_rng(k), k)
    plain, fast = both(lambda: hrp(stack, **options))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-12)
    one, quick = both(lambda: hrp(stack[0], **options))
    np.testing.assert_allclose(quick, one, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(quick, fast[0])


@needs_numba
@pytest.mark.parametrize("k", [2, 3, 4, 7, 12, 26])
def test_ties_are_decided_alike(k: int) -> None:
    """Correlations from a handful of values, and duplicated sleeves: many trees are equally short."""
    rng = np.random.default_rng(k)
    levels = rng.choice([0.0, 0.25, 0.5], size=(60, k, k))
    cov = np.triu(levels, 1) + np.triu(levels, 1).swapaxes(1, 2) + np.eye(k) * (1.0 + 0.5 * k)
    cov[::3, 1], cov[::3, :, 1] = cov[::3, 0], cov[::3, :, 0]
    cov[::3, 1, 1] = cov[::3, 0, 0]
    cov = 0.5 * (cov + cov.swapaxes(1, 2))
    plain, fast = both(lambda: hrp_rows(cov))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-12)


@needs_numba
@pytest.mark.parametrize("k", [1, 2, 3, 5, 12, 40])
def test_erc_equals_numpy_and_meets_its_shares(k: int) -> None:
    rng = np.random.default_rng(100 + k)
    stack, budget = draw(rng, k), rng.uniform(0.5, 2.0, k)
    plain, fast = both(lambda: erc(stack))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-12)
    assert np.abs(k * risk_contributions(stack, fast) - 1.0).max() <= 1e-10
    plain, fast = both(lambda: erc(stack, budget=budget))
    np.testing.assert_allclose(fast, plain, rtol=0, atol=1e-12)


@needs_numba
def test_what_is_declined_goes_to_numpy(compiled: None) -> None:
    stack = draw(np.random.default_rng(3), 6, n=4)
    stack[1, 0, 1] *= 1.0 + 1e-12  # still symmetric for numpy's tolerance
    stack[2] = np.eye(6) - 0.5  # indefinite: no ERC
    assert np.isfinite(hrp_rows(stack[:2])).all() and np.isfinite(erc_rows(stack[:2])).all()
    rows = answer("erc", stack, np.full((4, 6), 1.0 / 6.0))
    assert rows is not None and np.isnan(rows[[1, 2]]).all() and np.isfinite(rows[[0, 3]]).all()
    for bad, code in ((np.full((3, 3), np.nan), "NON_FINITE"), (np.zeros((3, 3)), "NON_POSITIVE_VARIANCE"), (np.ones(3), "SHAPE"),
                      (np.array([[1.0, 0.5, 0.0], [0.1, 1.0, 0.0], [0.0, 0.0, 1.0]]), "NOT_SYMMETRIC")):
        for allocate in (hrp, erc):
            with pytest.raises(InputError) as caught:
                allocate(bad)
            assert caught.value.code == code
    with pytest.raises(InputError, match="semi-definite"):
        erc(stack[2])


@needs_numba
def test_the_ladder_and_masks_run_on_it(compiled: None) -> None:
    stack = draw(np.random.default_rng(4), 8, n=12)
    stack[5] = np.nan
    mask = np.ones((12, 8), dtype=bool)
    mask[::2, 3] = False
    fast = {m: allocate_batch(stack, m, active=mask) for m in ("hrp", "erc")}
    accel.use(False)
    for m, (weights, rung) in fast.items():
        plain, steps = allocate_batch(stack, m, active=mask)
        np.testing.assert_allclose(weights, plain, rtol=0, atol=1e-12)
        np.testing.assert_array_equal(rung, steps)


@needs_numba
def test_the_switch_is_on_record(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine() == NUMPY and accel.from_environment() == NUMPY
    monkeypatch.setenv("PIL_ACCEL", "1")
    try:
        assert accel.from_environment().startswith("numba ") and engine().startswith("numba ")
    finally:
        assert accel.use(False) == NUMPY


def test_without_numba_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "available", lambda: False)
    with pytest.raises(ConfigError, match="accel"):
        accel.use(True)
    assert engine() == NUMPY


def test_nothing_is_compiled_unasked() -> None:
    code = "import sys, pil_research.integrator, pil_research.accel; print('numba' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False"]


def test_an_engine_can_be_any_code() -> None:
    try:
        assert install("half", {"hrp": lambda cov, *_: np.full(cov.shape[:2], 0.5)}) == NUMPY
        assert hrp(np.eye(2)).tolist() == [0.5, 0.5] and engine() == "half"
    finally:
        install(NUMPY, {})


def returns(t: int, k: int, seed: int = 0) -> np.ndarray:
    """Correlated returns with very different volatilities and means that matter."""
    rng = np.random.default_rng([seed, t, k])
    x = rng.standard_normal((t, k)) + rng.uniform(0.0, 1.5) * rng.standard_normal((t, 1)) + rng.uniform(-1.0, 1.0, k)
    return x * np.exp(rng.uniform(-6.0, 0.0, k))


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """Largest difference of covariances (..., K, K) beside the product of the volatilities; NaN and zero in the same places."""
    np.testing.assert_array_equal(np.isnan(one), np.isnan(two))
    sd = np.sqrt(np.diagonal(two, axis1=-2, axis2=-1))
    scale = sd[..., :, None] * sd[..., None, :]
    np.testing.assert_array_equal(one[scale == 0.0], two[scale == 0.0])
    real = scale > 0.0
    return float(np.max(np.abs(one - two)[real] / scale[real], initial=0.0))


@needs_numba
@pytest.mark.parametrize("k", [1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 40])
@pytest.mark.parametrize("t", [2, 3, 31, 32, 33, 252])
def test_sample_covariance_equals_numpy(t: int, k: int) -> None:
    x = returns(t, k)
    plain, fast = both(lambda: sample_covariance(x))
    assert apart(fast, plain) <= 1e-12 and apart(plain, np.cov(x, rowvar=False).reshape(k, k)) <= 1e-12
    np.testing.assert_array_equal(fast, fast.T)


@needs_numba
@pytest.mark.parametrize("as_given", [
    np.asfortranarray, lambda x: np.repeat(x, 2, axis=0)[::2], lambda x: np.repeat(x, 3, axis=1)[:, ::3], lambda x: x[::-1],
    lambda x: x.tolist(), lambda x: np.lib.stride_tricks.as_strided(x, x.shape, x.strides, writeable=False)],
    ids=["columns", "rows", "strided", "backwards", "lists", "read-only"])
def test_any_layout_gives_the_same_bits(as_given: Callable[[np.ndarray], object], compiled: None) -> None:
    x = returns(120, 6)
    given = as_given(x)
    same = np.array(given, dtype=float)
    np.testing.assert_array_equal(sample_covariance(given), sample_covariance(same))
    np.testing.assert_array_equal(rolling_covariance(given, 40, target="none"), rolling_covariance(same, 40, target="none"))
    for method in ("hrp", "erc"):
        np.testing.assert_array_equal(window_weights(given, method), window_weights(same, method))


@needs_numba
@pytest.mark.parametrize("kind", [np.float32, np.int64])
def test_other_numbers_are_taken_as_float64(kind: type) -> None:
    x = (1000.0 * returns(90, 5)).astype(kind)
    x[:, :] += np.arange(450, dtype=kind).reshape(90, 5) % 7
    for call in (lambda: sample_covariance(x), lambda: rolling_covariance(x, 30, target="none")):
        plain, fast = both(call)
        assert fast.dtype == np.float64 and apart(fast, plain) <= 1e-12


@needs_numba
def test_a_gap_stays_a_gap_and_touches_nobody_else() -> None:
    x = returns(64, 7)
    for at in ((0, 0), (63, 6), (31, 3), (32, 4)):
        y = x.copy()
        y[at] = np.nan
        plain, fast = both(lambda y=y: sample_covariance(y))
        gone = np.isnan(fast)
        assert gone[at[1]].all() and gone[:, at[1]].all() and gone.sum() == 13 and apart(fast, plain) <= 1e-12
        for method in ("hrp", "erc"):
            for on in (False, True):
                accel.use(on)
                with pytest.raises(InputError) as caught:
                    window_weights(y, method)
                assert caught.value.code == "NON_FINITE"
            accel.use(False)


@needs_numba
@pytest.mark.parametrize("value", [0.0, 0.1, -3.3e8, 1e-9])
def test_a_series_that_does_not_move_has_no_variance(value: float) -> None:
    x = returns(60, 5)
    x[:, 2] = value
    x[7, 4] = np.nan
    for cov in both(lambda: sample_covariance(x)):
        assert (cov[2, :4] == 0.0).all() and (cov[:4, 2] == 0.0).all() and np.isnan(cov[4]).all()
    plain, fast = both(lambda: rolling_covariance(x[:, :4], 20, target="none"))
    assert (fast[:, 2] == 0.0).all() and (fast[:, :, 2] == 0.0).all() and apart(fast, plain) <= 1e-12
    for on in (False, True):
        accel.use(on)
        with pytest.raises(InputError) as caught:
            window_weights(x[:, :4])
        assert caught.value.code == "NON_POSITIVE_VARIANCE"
    accel.use(False)


@needs_numba
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize(("window", "half_life"), [(2, None), (33, None), (60, 15.0)])
def test_rolling_windows_equal_numpy(k: int, window: int, half_life: float | None) -> None:
    x, ends = returns(150, k), [149, 0, window - 2, window - 1, 80, 80, 100]
    for rows in (None, ends, [90], []):
        plain, fast = both(lambda rows=rows: rolling_shrunk_covariance(x, window, half_life, "none", ends=rows))
        assert apart(fast.cov, plain.cov) <= 1e-12
        for name in ("shrinkage_intensity", "mean_correlation", "repair", "effective_bars"):
            np.testing.assert_allclose(getattr(fast, name), getattr(plain, name), rtol=1e-12, atol=1e-12, err_msg=name)


@needs_numba
def test_windows_with_gaps_are_numpys_and_the_others_are_not() -> None:
    x = returns(200, 6)
    x[100, 2] = np.nan
    x[:150, 5] = np.nan
    plain, fast = both(lambda: rolling_shrunk_covariance(x, 40, None, "none", min_overlap=20))
    assert apart(fast.cov, plain.cov) <= 1e-12
    np.testing.assert_allclose(fast.mean_correlation, plain.mean_correlation, atol=1e-12)
    np.testing.assert_array_equal(fast.cov[:140], plain.cov[:140])  # a gap or a missing series: not the compiled kind
    with pytest.raises(InputError, match="infinity"):
        accel.use(True)
        try:
            rolling_covariance(np.where(np.isnan(x), np.inf, x), 40, target="none")
        finally:
            accel.use(False)


@needs_numba
@pytest.mark.parametrize("before", [np.nan, 0.0, 1e9, -1e-9])
def test_a_window_is_the_same_bit_for_bit_whatever_surrounds_it(before: float, compiled: None) -> None:
    x, window = returns(130, 7), 61
    whole = rolling_covariance(x, window, target="none")
    for i in (0, 1, 7, 33, 69):
        np.testing.assert_array_equal(rolling_covariance(x[i:i + window], window, target="none")[0], whole[i])
        np.testing.assert_array_equal(rolling_covariance(x, window, target="none", ends=[i + window - 1])[0], whole[i])
        other = np.full_like(x, before)
        other[i:i + window] = x[i:i + window]
        np.testing.assert_array_equal(rolling_covariance(other, window, target="none")[i], whole[i])
    shifted = np.frombuffer(bytearray(8) + x.tobytes(), dtype=np.float64)[1:].reshape(x.shape)  # another place in memory
    np.testing.assert_array_equal(rolling_covariance(shifted, window, target="none"), whole)
    np.testing.assert_array_equal(sample_covariance(shifted), sample_covariance(x))


@needs_numba
def test_threads_share_nothing(compiled: None) -> None:
    panels = [returns(120, k, seed) for seed in range(8) for k in (3, 8)]
    jobs: tuple[Callable[[np.ndarray], np.ndarray], ...] = (
        sample_covariance, window_weights, lambda x: window_weights(x, "erc"), lambda x: rolling_covariance(x, 50, target="none"))
    alone = [[job(x) for job in jobs] for x in panels]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            for mine, theirs in zip(alone, pool.map(lambda x: [job(x) for job in jobs], panels), strict=True):
                for one, two in zip(mine, theirs, strict=True):
                    np.testing.assert_array_equal(one, two)


@needs_numba
@pytest.mark.parametrize("method", ["hrp", "erc"])
@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 12, 30])
def test_a_window_gets_the_weights_of_its_covariance(method: str, k: int) -> None:
    x, allocate = returns(252, k), {"hrp": hrp, "erc": erc}[method]
    plain, fast = both(lambda: window_weights(x, method))
    np.testing.assert_allclose(fast, plain, rtol=1e-12, atol=1e-12)
    for given, on in ((plain, False), (fast, True)):
        accel.use(on)
        np.testing.assert_array_equal(given, allocate(sample_covariance(x)))
        if on and (method == "hrp" or k > 2):  # the compiled call itself, not numpy after it declined
            np.testing.assert_array_equal(answer(f"{method} window", x), given)
    accel.use(False)


@pytest.mark.parametrize("on", [False, pytest.param(True, marks=needs_numba)])
def test_what_is_not_a_window_is_refused(on: bool) -> None:
    accel.use(on)
    try:
        for bad in (np.ones(4), np.ones((1, 4)), np.ones((5, 0)), np.ones((2, 3, 4))):
            for call in (sample_covariance, window_weights):
                with pytest.raises(InputError) as caught:
                    call(bad)
                assert caught.value.code == "BAD_SHAPE"
        with pytest.raises(InputError, match="method must be one of") as caught:
            window_weights(np.ones((5, 2)), "nco")
        assert caught.value.code == "UNKNOWN_METHOD"
    finally:
        accel.use(False)


@needs_numba
def test_hopeless_matrices_are_declined_and_never_raise_inside(compiled: None) -> None:
    flat = np.ones((4, 4))  # perfectly correlated: a pivot that is zero but for the budget
    hedged = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    wild = np.array([[1.0, -2.0, 0.3], [-2.0, 1.0, 0.3], [0.3, 0.3, 1.0]])  # not a covariance
    rows = answer("erc", np.stack([hedged, wild, np.eye(3), np.full((3, 3), np.inf)]), np.full((4, 3), 1.0 / 3.0))
    assert rows is not None and np.isnan(rows[[0, 1, 3]]).all() and np.isfinite(rows[2]).all()
    np.testing.assert_allclose(erc(flat), 0.25, rtol=1e-12)
    for matrix in (hedged, wild):
        with pytest.raises(InputError) as caught:
            erc(matrix)
        assert caught.value.code == "NO_SOLUTION"


@needs_numba
@pytest.mark.parametrize("k", [3, 8, 12, 25])
def test_erc_of_hard_matrices_equals_numpy(k: int) -> None:
    """Strong common factors, hedges and budgets that are far apart: many Newton steps."""
    rng = np.random.default_rng(k)
    side = rng.choice([-1.0, 1.0], size=(40, 1, k)) * rng.uniform(0.0, 6.0, (40, 1, 1))
    x = rng.standard_normal((40, 6 * k, k)) + side * rng.standard_normal((40, 6 * k, 1))
    cov = np.einsum("nti,ntj->nij", x, x)
    cov = 0.5 * (cov + cov.swapaxes(1, 2))
    budget = rng.uniform(0.01, 1.0, k)
    for options in ({}, {"budget": budget}):
        plain, fast = both(lambda options=options: erc(cov, **options))
        np.testing.assert_allclose(fast, plain, rtol=1e-12, atol=0)


@needs_numba
@pytest.mark.parametrize("at", [0, 1, 100, 251])
@pytest.mark.parametrize("size", [5.0, 1e4])
def test_an_outlier_costs_no_digits(at: int, size: float) -> None:
    """The compiled sample covariance measures from the first row: worst where that is the outlier."""
    x = returns(252, 6)
    x[at] += size
    for call in (lambda: sample_covariance(x), lambda: rolling_covariance(x, 252, target="none")[0]):
        plain, fast = both(call)
        assert apart(fast, plain) <= 1e-12
