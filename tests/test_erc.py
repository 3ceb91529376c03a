"""ERC: published numbers, closed forms, skfolio, and the promise on risk shares."""
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.allocators import erc, inverse_vol, risk_contributions
from pil_research.allocators.erc import _newton_one, _newton_rows, _solve_rows, erc_rows
from pil_research.types import InputError

PYRB_VOL = np.array([0.15, 0.2, 0.25, 0.3, 0.1])
PYRB_CORR = np.array([[1, 0.1, 0.4, 0.5, 0.5], [0.1, 1, 0.7, 0.4, 0.4], [0.4, 0.7, 1, 0.8, 0.05],
                      [0.5, 0.4, 0.8, 1, 0.1], [0.5, 0.4, 0.05, 0.1, 1]])
PYRB_COV = PYRB_CORR * np.outer(PYRB_VOL, PYRB_VOL)


def spd(rng, k, n=1):
    out = np.empty((n, k, k))
    for i in range(n):
        x = rng.standard_normal((k, 2 * k + 2 + int(rng.integers(0, 4 * k))))
        x = x + rng.uniform(-1.0, 1.0) * rng.standard_normal((1, x.shape[1]))
        sd = np.exp(rng.normal(size=k)) * 0.01
        out[i] = (x @ x.T) / x.shape[1] * np.outer(sd, sd)
    return out


def test_pyrb_matrix():
    """Inputs of pyrb's tests; weights checked by two independent solvers (specification's number file)."""
    expected = [0.22400903470423206, 0.16507809575286253, 0.12033889635072356, 0.10513170988819455, 0.3854422633039873]
    np.testing.assert_allclose(erc(PYRB_COV), expected, rtol=0, atol=1e-12)
    budget = [0.2, 0.2, 0.3, 0.1, 0.2]
    expected = [0.22560180523395493, 0.15817256165118151, 0.1759843140886954, 0.054470002661967616, 0.3857713163642004]
    weights = erc(PYRB_COV, budget=budget)
    np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(risk_contributions(PYRB_COV, weights), budget, rtol=1e-11)


def test_riskparity_rs_budgets():
    """convexfi/riskparity.rs pins these weights to 1e-6."""
    cov = np.array([[1, 0.0015, -0.0119], [0.0015, 1, -0.0308], [-0.0119, -0.0308, 1]])
    expected = [0.27986280067580155, 0.08774908615114298, 0.6323881131730554]
    np.testing.assert_allclose(erc(cov, budget=[0.1594, 0.0126, 0.828]), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("rho", [-1.0, -0.9, 0.0, 0.9, 1.0])
def test_two_sleeves_are_inverse_vol(rho):
    cov = np.array([[0.01, 0.03 * rho], [0.03 * rho, 0.09]])
    np.testing.assert_allclose(erc(cov), [0.75, 0.25], rtol=1e-15)


@pytest.mark.parametrize("rho", [-0.2, 0.0, 0.5, 0.99])
def test_constant_correlation_is_inverse_vol(rho):
    vol = np.array([0.05, 0.1, 0.2, 0.25, 0.4])
    cov = np.outer(vol, vol) * (rho + (1 - rho) * np.eye(5))
    np.testing.assert_allclose(erc(cov), [0.4819277108433735, 0.24096385542168675, 0.12048192771084337,
                                          0.0963855421686747, 0.060240963855421686], rtol=0, atol=1e-14)


def test_oracle_folder():
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is not set: no folder of published numbers")
    cases = {c["id"]: c for c in json.loads((Path(folder) / "erc.json").read_text())["cases"]}
    case = cases["erc-riskparity-rs-3"]
    weights = erc(case["input"]["cov"], budget=case["input"]["budgets"])
    np.testing.assert_allclose(weights, case["expected"]["weights"], rtol=0, atol=1e-9)


def test_skfolio_agrees():
    skfolio = pytest.importorskip("skfolio.optimization")
    rng = np.random.default_rng(2)
    for k in (2, 3, 5, 8, 12):
        x = pd.DataFrame(rng.standard_normal((300, k)) @ np.linalg.cholesky(spd(rng, k)[0]).T,
                         index=pd.date_range("2020-01-01", periods=300))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = skfolio.RiskBudgeting().fit(x)
        cov = x.cov().to_numpy()
        ours = erc(cov)
        np.testing.assert_allclose(ours, peer.weights_, rtol=0, atol=2e-4)  # its solver stops near 1e-4
        spread, theirs = (np.ptp(risk_contributions(cov, w)) for w in (ours, peer.weights_))
        assert spread <= 1e-10 and spread <= theirs


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 16), st.integers(0, 2**32 - 1), st.floats(1e-8, 1e8))
def test_shares_are_equal_and_units_cancel(k, seed, unit):
    cov = spd(np.random.default_rng(seed), k)[0]
    w = erc(cov)
    assert (w > 0).all() and abs(w.sum() - 1) < 1e-14
    assert np.abs(risk_contributions(cov, w) * k - 1).max() <= 1e-10
    np.testing.assert_allclose(erc(cov * unit), w, rtol=1e-10)


@settings(max_examples=30, deadline=None)
@given(st.integers(3, 10), st.integers(0, 2**32 - 1))
def test_order_of_sleeves_does_not_matter(k, seed):
    rng = np.random.default_rng(seed)
    cov, p = spd(rng, k)[0], rng.permutation(k)
    np.testing.assert_allclose(erc(cov[np.ix_(p, p)]), erc(cov)[p], rtol=1e-11)


@pytest.mark.parametrize("k", [1, 2, 3, 8, 50])
def test_one_matrix_and_a_stack_agree(k):
    covs = spd(np.random.default_rng(k), k, 12)
    stacked = erc(covs)
    np.testing.assert_allclose(stacked, [erc(c) for c in covs], rtol=0, atol=1e-14)
    np.testing.assert_array_equal(erc(covs.reshape(3, 4, k, k)).reshape(12, k), stacked)
    budgets = np.random.default_rng(0).uniform(0.1, 1.0, (12, k))
    shares = risk_contributions(covs, erc(covs, budget=budgets))
    np.testing.assert_allclose(shares, budgets / budgets.sum(-1, keepdims=True), rtol=1e-9)


def test_clones_share_a_seat():
    x = np.random.default_rng(5).standard_normal((400, 3))
    cov = np.cov(x[:, [0, 1, 2, 0]].T)
    w = erc(cov)
    assert w[0] == pytest.approx(w[3], abs=1e-12)
    assert w[0] + w[3] < 0.45  # inverse volatility pays the pair about 0.5


def test_indefinite_and_hedged_matrices_are_refused_alone_and_in_a_stack():
    indefinite = 1.9 * np.eye(3) - 0.9
    hedged = np.kron(np.eye(2), [[1.0, -1.0], [-1.0, 1.0]])
    for cov in (indefinite, hedged):
        with pytest.raises(InputError, match="hedge each other") as error:
            erc(cov)
        assert error.value.code == "NO_SOLUTION"
    rows = erc_rows(np.array([indefinite, np.eye(3), indefinite]))
    assert np.isnan(rows).all(-1).tolist() == [True, False, True]
    np.testing.assert_allclose(rows[1], 1 / 3)


def test_a_singular_system_does_not_stop_the_others():
    solved = _solve_rows(np.array([np.zeros((2, 2)), 2 * np.eye(2)]), np.ones((2, 2)))
    assert np.isnan(solved[0]).all() and np.allclose(solved[1], 0.5, rtol=1e-14)
    rho, share = np.array([np.eye(3), 0.5 + 0.5 * np.eye(3)]), np.full((2, 3), 1 / 3)
    np.testing.assert_allclose(_newton_rows(rho, share)[1], _newton_one(rho[1], share[1]), rtol=1e-13)


@pytest.mark.parametrize("budget", [[0.5, 0.5], [0.5, 0.5, 0.0], [0.5, np.nan, 0.2], [1.0, -1.0, 1.0], 1.0])
def test_bad_budgets_are_refused(budget):
    with pytest.raises(InputError, match="budget must be 3 positive") as error:
        erc(np.eye(3), budget=budget)
    assert error.value.code == "BAD_BUDGET"


def test_budget_is_scaled_and_inputs_are_not_changed():
    cov, budget = PYRB_COV.copy(), np.array([2.0, 2.0, 3.0, 1.0, 2.0])
    np.testing.assert_array_equal(erc(cov, budget=budget), erc(cov, budget=budget / 10))
    np.testing.assert_array_equal(cov, PYRB_COV)
    np.testing.assert_allclose(erc(np.diag([1.0, 4.0])), inverse_vol(np.diag([1.0, 4.0])))
