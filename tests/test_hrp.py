"""HRP: against scipy, riskfolio-lib, PyPortfolioOpt, the published table, and against itself."""
import itertools
import json
import os
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from pil_research.allocators import hrp, quasi_diagonal_order
from pil_research.allocators.hrp import hrp_rows
from pil_research.types import InputError

MODULE = sys.modules["pil_research.allocators.hrp"]
TREE = sys.modules["pil_research.allocators.tree"]
SLEEVE_VOL = np.array([0.08, 0.12, 0.10, 0.20, 0.15])
SLEEVE_CORR = np.array([[1.0, 0.72, 0.15, 0.05, -0.1], [0.72, 1.0, 0.2, 0.12, 0.02], [0.15, 0.2, 1.0, 0.45, 0.3],
                        [0.05, 0.12, 0.45, 1.0, 0.58], [-0.1, 0.02, 0.3, 0.58, 1.0]])
SLEEVE_COV = SLEEVE_CORR * np.outer(SLEEVE_VOL, SLEEVE_VOL)


def spd(rng, k, n=1):
    """Random covariances with unequal volatilities, from nearly singular to nearly diagonal."""
    out = np.empty((n, k, k))
    for i in range(n):
        x = rng.standard_normal((k, k + 2 + int(rng.integers(0, 4 * k))))
        x = x + rng.uniform(-1.0, 1.0) * rng.standard_normal((1, x.shape[1]))
        sd = np.exp(rng.normal(size=k)) * 0.01
        out[i] = (x @ x.T) / x.shape[1] * np.outer(sd, sd)
    return out


def distances(cov):
    sd = np.sqrt(np.diag(cov))
    d = np.sqrt(np.clip((1 - cov / np.outer(sd, sd)) / 2, 0, 1))
    np.fill_diagonal(d, 0.0)
    return d


@pytest.mark.parametrize(("k", "n"), [(2, 50), (3, 100), (5, 200), (8, 200), (12, 100), (24, 30), (50, 30)])
@pytest.mark.parametrize("reorder", [True, False])
def test_order_is_scipys(k, n, reorder):
    covs = spd(np.random.default_rng(k), k, n)
    orders = quasi_diagonal_order(covs, leaf_order=reorder)
    for cov, order in zip(covs, orders, strict=True):
        expected = leaves_list(linkage(squareform(distances(cov), checks=False), "single", optimal_ordering=reorder))
        np.testing.assert_array_equal(order, expected)
        np.testing.assert_array_equal(quasi_diagonal_order(cov, leaf_order=reorder), expected)


@pytest.mark.parametrize("k", [3, 5, 8, 12])
def test_paper_order_is_scipys_on_columns(k):
    covs = spd(np.random.default_rng(100 + k), k, 60)
    for cov, order in zip(covs, quasi_diagonal_order(covs, variant="paper"), strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = leaves_list(linkage(distances(cov), "single"))
        np.testing.assert_array_equal(order, expected)


@pytest.mark.parametrize("k", [1, 2, 3, 5, 8, 12, 24, 25, 50])
@pytest.mark.parametrize("how", [{}, {"leaf_order": False}, {"variant": "paper"}])
def test_one_matrix_and_a_stack_agree_bitwise(k, how):
    covs = spd(np.random.default_rng(k), k, 20)
    stacked = hrp(covs, **how)
    for cov, row in zip(covs, stacked, strict=True):
        np.testing.assert_array_equal(hrp(cov, **how), row)
    np.testing.assert_array_equal(hrp(covs.reshape(4, 5, k, k), **how).reshape(20, k), stacked)


def test_lists_and_arrays_agree_bitwise_on_ties(monkeypatch):
    rng = np.random.default_rng(4)
    covs = np.array([np.where(np.equal.outer(b, b), 0.6, 0.2) + 0.4 * np.eye(9) for b in rng.integers(0, 4, (40, 9))])
    covs[20:] = np.round(spd(rng, 9, 20) * 1e4, 1) + 5 * np.eye(9)
    stacked = hrp(covs)
    np.testing.assert_array_equal(stacked, [hrp(c) for c in covs])
    monkeypatch.setattr(TREE, "_LIST_MAX_K", 0)
    np.testing.assert_array_equal(stacked, [hrp(c) for c in covs])


def test_riskfolio_agrees():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        riskfolio = pytest.importorskip("riskfolio")
        rng = np.random.default_rng(11)
        for k in (2, 3, 5, 8, 12, 50):
            x = pd.DataFrame(rng.standard_normal((k + 60, k)) @ np.linalg.cholesky(spd(rng, k)[0]).T)
            for leaf_order in (True, False):
                peer = riskfolio.HCPortfolio(returns=x)
                w = peer.optimization(model="HRP", codependence="pearson", rm="MV", rf=0, linkage="single",
                                      method_cov="hist", leaf_order=leaf_order)
                ours = hrp(x.cov().to_numpy(), leaf_order=leaf_order)
                np.testing.assert_allclose(ours, w["weights"].to_numpy(), rtol=0, atol=1e-12)


def test_pypfopt_agrees_without_reordering():
    pypfopt = pytest.importorskip("pypfopt")
    rng = np.random.default_rng(12)
    for k in (2, 3, 5, 8, 12, 50):
        x = pd.DataFrame(rng.standard_normal((k + 60, k)) @ np.linalg.cholesky(spd(rng, k)[0]).T)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            peer = pypfopt.HRPOpt(x).optimize(linkage_method="single")
        ours = hrp(x.cov().to_numpy(), leaf_order=False)
        np.testing.assert_allclose(ours, [peer[i] for i in range(k)], rtol=0, atol=1e-12)


def test_reproduces_the_published_table():
    """López de Prado (2016), exhibit 6, column HRP in percent; his simulation with his seed."""
    normal, pick = np.random.RandomState(12345), random.Random(12345)
    base = normal.normal(0, 1, size=(10_000, 5))
    columns = [int(pick.random() * 5) for _ in range(5)]
    x = np.hstack([base, base[:, columns] + normal.normal(0, 0.25, size=(10_000, 5))])
    weights = hrp(np.cov(x.T), variant="paper")
    table = [7.00, 7.59, 10.84, 19.03, 9.72, 10.19, 6.62, 9.10, 7.12, 12.79]
    np.testing.assert_allclose(100 * weights, table, rtol=0, atol=0.005 + 1e-9)


def test_five_sleeves():
    """Formula of the specification, checked there against PyPortfolioOpt; no ties, so both variants agree."""
    expected = [0.40192899246653035, 0.1786351077629024, 0.29005193566350324, 0.04657822707854304, 0.08280573702852101]
    for how in ({}, {"leaf_order": False}, {"variant": "paper"}):
        np.testing.assert_allclose(hrp(SLEEVE_COV, **how), expected, rtol=0, atol=1e-10)
        assert quasi_diagonal_order(SLEEVE_COV, **how).tolist() == [0, 1, 2, 3, 4]


def test_oracle_folder():
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is not set: no folder of published numbers")
    case = {c["id"]: c for c in json.loads((Path(folder) / "hrp.json").read_text())["cases"]}["hrp-8-variants"]
    cov = np.cov(np.array(case["input"]["X"]).T, ddof=case["input"]["cov_ddof"])
    for name, how in {"euclid_single": {"variant": "paper"}, "condensed_single": {"leaf_order": False},
                      "condensed_single_optimal_leaf_order": {}}.items():
        expected = case["expected"][name]
        assert quasi_diagonal_order(cov, **how).tolist() == expected["order0"]
        np.testing.assert_allclose(hrp(cov, **how), expected["weights"], rtol=0, atol=1e-9)


def test_small_cases_have_closed_forms():
    assert hrp([[0.04]]).tolist() == [1.0]
    np.testing.assert_allclose(hrp([[0.04, 0.006], [0.006, 0.01]]), [0.2, 0.8], rtol=0, atol=1e-15)
    variances = np.array([0.01, 0.02, 0.04, 0.08, 0.05])
    np.testing.assert_allclose(hrp(np.diag(variances)), (1 / variances) / (1 / variances).sum(), rtol=1e-14)
    np.testing.assert_allclose(hrp(0.3 + 0.7 * np.eye(8)), np.full(8, 0.125), rtol=1e-14)
    assert hrp(0.3 + 0.7 * np.eye(3)).max() == pytest.approx(0.39393939, abs=1e-8)


def _brute_force_facing(d, children):
    """Leaf lists of each node, its two halves as its own best path wants them (scipy's rule), by enumeration."""
    k = len(d)

    def arrangements(node):
        if node < k:
            return [[node]]
        left, right = children[node - k]
        pairs = [(a, b) for a in arrangements(left) for b in arrangements(right)]
        return [a + b for a, b in pairs] + [b + a for a, b in pairs]

    return min(sum(d[i, j] for i, j in itertools.pairwise(a)) for a in arrangements(2 * k - 2))


@pytest.mark.parametrize("k", [3, 4, 5, 6])
def test_path_lengths_are_the_shortest(k):
    """The dynamic programme's value at the root equals an enumeration of every way to hang the mobile."""
    for cov in spd(np.random.default_rng(k), k, 10):
        d = np.rint(distances(cov) * 2**42)
        children = TREE._tree_of_list(d.tolist())
        leaves = [([i], []) for i in range(k)]
        paths = [[0.0] * k for _ in range(k)]
        for left, right in children:
            u, w = TREE._best_ends(d.tolist(), paths, leaves[left], leaves[right])
            leaves.append((leaves[left][0] + leaves[left][1], leaves[right][0] + leaves[right][1]))
        assert paths[u][w] == _brute_force_facing(d, children)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 14), st.integers(0, 2**32 - 1), st.floats(1e-8, 1e8))
def test_weights_are_a_portfolio_and_ignore_units(k, seed, unit):
    cov = spd(np.random.default_rng(seed), k)[0]
    for variant in ("direct", "paper"):
        w = hrp(cov, variant=variant)
        assert (w >= 0).all() and abs(w.sum() - 1) < 1e-14
        np.testing.assert_allclose(hrp(cov * unit, variant=variant), w, rtol=0, atol=1e-13)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(4, 10))
def test_last_bit_noise_on_clones_changes_nothing(seed, k):
    """A clone and a scaled clone: correlation 1 up to noise. The tree must not depend on that noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((120, k))
    x[:, 1], x[:, 3] = x[:, 0], 2.5 * x[:, 2]
    cov = np.cov(x.T)
    noise = 1 + 2e-16 * rng.standard_normal((k, k))
    noisy = cov * (noise + noise.T) / 2
    np.testing.assert_allclose(hrp(noisy), hrp(cov), rtol=0, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 9))
def test_sign_of_a_pair_of_sleeves_only_matters_through_correlation(seed, k):
    """Flipping every sleeve leaves the covariance, hence the weights, as they are; input is not changed."""
    cov = spd(np.random.default_rng(seed), k)[0]
    before = cov.copy()
    flip = -np.ones(k)
    np.testing.assert_array_equal(hrp(cov * np.outer(flip, flip)), hrp(cov))
    np.testing.assert_array_equal(cov, before)


def test_extreme_scales_agree_between_lists_and_arrays():
    for ratio in (1e6, 1e12, 1e100, 1e200):
        sd = np.array([1.0, 1.0, ratio, ratio]) ** 0.5
        cov = np.outer(sd, sd) * (0.3 + 0.7 * np.eye(4))
        np.testing.assert_array_equal(hrp_rows(cov[None]), hrp_rows(np.array([cov] * 6))[:1])


@pytest.mark.parametrize(("cov", "code"), [
    (np.ones((2, 3)), "SHAPE"), (1.0, "SHAPE"), (np.zeros((0, 0)), "SHAPE"),
    ([[1.0, np.nan], [np.nan, 1.0]], "NON_FINITE"), ([[1.0, np.inf], [np.inf, 1.0]], "NON_FINITE"),
    ([[0.0, 0.0], [0.0, 1.0]], "NON_POSITIVE_VARIANCE"), ([[-1.0, 0.0], [0.0, 1.0]], "NON_POSITIVE_VARIANCE"),
    ([[1.0, 0.1], [0.3, 1.0]], "NOT_SYMMETRIC")])
def test_unusable_input_is_refused(cov, code):
    with pytest.raises(InputError, match="cov must") as error:
        hrp(cov)
    assert error.value.code == code


def test_unknown_variants_are_refused():
    with pytest.raises(InputError, match="variant must be one of"):
        hrp(np.eye(3), variant="ward")
    with pytest.raises(InputError, match="no leaf reordering"):
        quasi_diagonal_order(np.eye(3), variant="paper", leaf_order=True)


def test_a_cut_without_variance_on_either_side_is_refused(monkeypatch):
    hedge = np.array([[1.0, -1.0], [-1.0, 1.0]])
    np.testing.assert_array_equal(hrp(hedge), [0.5, 0.5])
    monkeypatch.setattr(MODULE, "_order_rows", lambda cov, *_: np.tile(np.arange(4), (len(cov), 1)))
    cov = np.kron(np.eye(2), hedge)
    with pytest.raises(InputError, match="some variance") as error:
        hrp(cov)
    assert error.value.code == "NO_SOLUTION"
    assert np.isnan(hrp_rows(np.array([cov] * 6))).all()
