"""The registry and the ladder: it always answers, and it says how."""
import inspect
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.allocators import (
    ALLOCATORS,
    LADDER,
    allocate_batch,
    allocate_with_fallback,
    equal_weight,
    erc,
    hrp,
    inverse_vol,
    ladder,
)
from pil_research.types import InputError


def spd(rng, k, n=1):
    x = rng.standard_normal((n, k, 3 * k + 2))
    sd = np.exp(0.5 * rng.normal(size=(n, k))) * 0.01
    return (x @ np.swapaxes(x, 1, 2)) / x.shape[2] * sd[:, :, None] * sd[:, None, :]


def test_names_and_ladders():
    assert tuple(ALLOCATORS) == ("hrp", "erc", "inverse_vol", "equal", "min_variance", "nco", "herc")
    assert LADDER == ("hrp", "erc", "inverse_vol", "equal") == ladder("hrp")
    assert ladder("inverse_vol") == ("inverse_vol", "equal")
    assert ladder("nco") == ("nco", *LADDER)
    with pytest.raises(TypeError):
        ALLOCATORS["mine"] = hrp


def test_no_allocator_takes_an_expected_return():
    for allocate in ALLOCATORS.values():
        names = set(inspect.signature(allocate).parameters)
        assert not names & {"mu", "expected_return", "expected_returns", "returns", "forecast", "alpha"}


@pytest.mark.parametrize("name", sorted(ALLOCATORS))
@pytest.mark.parametrize("k", [1, 2, 3, 7])
def test_first_rung_is_the_allocator_itself(name, k):
    covs = spd(np.random.default_rng(k), k, 6)
    for cov in covs:
        weights, attempts = allocate_with_fallback(cov, name)
        np.testing.assert_array_equal(weights, ALLOCATORS[name](cov))
        assert attempts == [(name, "ok")]
    weights, attempts = allocate_with_fallback(covs.reshape(2, 3, k, k), name)
    assert weights.shape == (2, 3, k) and attempts == [(name, "ok")]
    stacked, rung = allocate_batch(covs, name)
    np.testing.assert_array_equal(stacked, ALLOCATORS[name](covs))
    assert rung.tolist() == [0] * 6


def test_the_walk_is_recorded():
    cov = np.array([[0.04, np.nan], [np.nan, 0.01]])
    weights, attempts = allocate_with_fallback(cov)
    np.testing.assert_allclose(weights, [1 / 3, 2 / 3])
    assert attempts == [("hrp", "NON_FINITE"), ("erc", "NON_FINITE"), ("inverse_vol", "ok")]
    weights, attempts = allocate_with_fallback([[0.0, 0.0], [0.0, 1.0]], "nco")
    assert weights.tolist() == [0.5, 0.5]
    assert attempts[:-1] == [(m, "NON_POSITIVE_VARIANCE") for m in ("nco", "hrp", "erc", "inverse_vol")]
    assert attempts[-1] == ("equal", "ok")
    hedged = np.kron(np.eye(2), [[1.0, -1.0], [-1.0, 1.0]])
    assert allocate_with_fallback(hedged, "erc")[1] == [("erc", "NO_SOLUTION"), ("inverse_vol", "ok")]


def test_shorts_are_not_an_answer():
    cov = np.array([[0.0064, 0.0110], [0.0110, 0.04]])
    weights, attempts = allocate_with_fallback(cov, "nco", inner="minvar", clusters=[[0, 1]])
    assert attempts[0] == ("nco", "NO_SOLUTION") and (weights >= 0).all()


def test_options_go_to_the_first_rung_only():
    cov = np.array([[0.04, np.nan], [np.nan, 0.01]])
    assert allocate_with_fallback(cov, "erc", budget=[0.3, 0.7])[1][-1] == ("inverse_vol", "ok")
    good = spd(np.random.default_rng(0), 5)[0]
    np.testing.assert_array_equal(allocate_with_fallback(good, variant="paper")[0], hrp(good, variant="paper"))
    weights, attempts = allocate_with_fallback(good, "min_variance", upper=0.1)
    np.testing.assert_array_equal(weights, hrp(good))
    assert attempts == [("min_variance", "NO_SOLUTION"), ("hrp", "ok")]


def test_wrong_names_shapes_and_options_are_errors_not_fallbacks():
    with pytest.raises(InputError, match="did you mean 'erc'") as error:
        allocate_with_fallback(np.eye(2), "ercc")
    assert error.value.code == "UNKNOWN_METHOD"
    with pytest.raises(InputError, match="shape"):
        allocate_with_fallback(np.ones((2, 3)))
    with pytest.raises(InputError, match="variant must be"):
        allocate_with_fallback(np.eye(3), variant="ward")
    with pytest.raises(InputError, match="method must be"):
        allocate_batch(np.eye(2)[None], "x", active=[[False, False]])


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**32 - 1), st.sampled_from(sorted(ALLOCATORS)))
def test_any_matrix_gets_an_answer_or_nothing_is_said_wrong(k, seed, method):
    rng = np.random.default_rng(seed)
    cov = spd(rng, k)[0] if rng.random() < 0.5 else rng.standard_normal((k, k))
    poison = np.array([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e300, 1e-300, 1e-12])
    hit = rng.random((k, k)) < rng.choice([0.0, 0.1, 0.5])
    cov = np.where(hit, rng.choice(poison, (k, k)), cov)
    cov = np.where(rng.random() < 0.7, np.triu(cov) + np.triu(cov, 1).T, cov)
    with np.errstate(all="ignore"):
        weights, attempts = allocate_with_fallback(cov, method)
    assert np.isfinite(weights).all() and (weights >= 0).all() and abs(weights.sum() - 1) < 1e-9
    assert [a[0] for a in attempts] == list(ladder(method)[: len(attempts)])
    assert attempts[-1][1] == "ok" and all(reason != "ok" for _, reason in attempts[:-1])


def test_a_bad_row_does_not_touch_the_others():
    covs = spd(np.random.default_rng(2), 6, 9)
    clean, _ = allocate_batch(covs)
    covs[3, 0, 1] = np.nan
    covs[5, 2, 2] = 0.0
    weights, rung = allocate_batch(covs)
    keep = [0, 1, 2, 4, 6, 7, 8]
    np.testing.assert_array_equal(weights[keep], clean[keep])
    assert rung.tolist() == [0, 0, 0, 2, 0, 3, 0, 0, 0]
    _, attempts = allocate_with_fallback(covs)
    assert attempts[0] == ("hrp", "NON_POSITIVE_VARIANCE (2 of 9 rows)")


@pytest.mark.parametrize("method", sorted(ALLOCATORS))
def test_inactive_sleeves_get_zero_and_change_nothing(method):
    rng = np.random.default_rng(8)
    covs = spd(rng, 6, 20)
    active = rng.random((20, 6)) < 0.6
    active[0], active[1] = False, True
    weights, rung = allocate_batch(covs, method, active=active)
    poisoned = np.where(active[:, :, None] & active[:, None, :], covs, np.nan)
    np.testing.assert_array_equal(allocate_batch(poisoned, method, active=active)[0], weights)
    assert (weights[~active] == 0).all() and (weights[0] == 0).all() and (rung == 0).all()
    for cov, row, mask in zip(covs[1:], weights[1:], active[1:], strict=True):
        if mask.any():
            np.testing.assert_allclose(row[mask], ALLOCATORS[method](cov[np.ix_(mask, mask)]), rtol=0, atol=1e-14)
    shared, _ = allocate_batch(covs, method, active=active[2])
    np.testing.assert_allclose(shared[2], weights[2], rtol=0, atol=1e-14)


def test_every_rung_agrees_with_its_function():
    cov = spd(np.random.default_rng(6), 4)[0]
    for name, allocate in (("hrp", hrp), ("erc", erc), ("inverse_vol", inverse_vol), ("equal", equal_weight)):
        np.testing.assert_allclose(allocate_with_fallback(cov, name)[0], allocate(cov), rtol=1e-14)


def test_import_is_light():
    code = ("import sys, pil_research.allocators; "
            "bad = {'sklearn', 'riskfolio', 'skfolio', 'matplotlib', 'scipy.cluster', 'scipy.optimize', 'IPython', "
            "'nbdev', 'fastcore'} & set(sys.modules); sys.exit(str(bad) if bad else 0)")
    subprocess.run([sys.executable, "-c", code], check=True)
