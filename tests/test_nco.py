"""NCO and HERC: published numbers, riskfolio-lib, scipy's linkage, sklearn's silhouette."""
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from pil_research.allocators import cluster_labels, erc, herc, hrp, inverse_variance, min_variance, nco
from pil_research.allocators.nco import NESTED, _average_linkage, _cluster_counts
from pil_research.allocators.simple import correlation_of
from pil_research.allocators.tree import distance_units
from pil_research.types import InputError

VOL = np.array([0.08, 0.12, 0.10, 0.20, 0.15])
CORR = np.array([[1.0, 0.72, 0.15, 0.05, -0.1], [0.72, 1.0, 0.2, 0.12, 0.02], [0.15, 0.2, 1.0, 0.45, 0.3],
                 [0.05, 0.12, 0.45, 1.0, 0.58], [-0.1, 0.02, 0.3, 0.58, 1.0]])
COV = CORR * np.outer(VOL, VOL)
CLUSTERS = [[0, 1], [2, 3, 4]]


def spd(rng, k, n=1):
    out = np.empty((n, k, k))
    for i in range(n):
        x = rng.standard_normal((k, 2 * k + 2 + int(rng.integers(0, 4 * k))))
        x = x + rng.uniform(-1.0, 1.0) * rng.standard_normal((1, x.shape[1]))
        sd = np.exp(0.7 * rng.normal(size=k)) * 0.01
        out[i] = (x @ x.T) / x.shape[1] * np.outer(sd, sd)
    return out


def condensed(cov):
    sd = np.sqrt(np.diag(cov))
    d = np.sqrt(np.clip((1 - cov / np.outer(sd, sd)) / 2, 0, 1))
    np.fill_diagonal(d, 0)
    return d, squareform(d, checks=False)


def same_partition(a, b):
    return np.array_equal(np.equal.outer(a, a), np.equal.outer(b, b))


def test_nested_erc_and_closed_form():
    """Five sleeves, clusters given; own computation of the specification's number file."""
    np.testing.assert_allclose(nco(COV, clusters=CLUSTERS), [
        0.32903870094546456, 0.2193591339636432, 0.21703277594293385, 0.09666501716028623, 0.1379043719876721],
        rtol=0, atol=1e-12)
    np.testing.assert_allclose(nco(COV, clusters=CLUSTERS, inner="minvar", outer="minvar"), [
        0.6188630977228652, -0.042315425485323986, 0.34073821051756825, -0.04012562994152041, 0.12283974718641093],
        rtol=0, atol=1e-12)


def test_riskfolio_numbers():
    """riskfolio-lib 7.4.0 HCPortfolio on the same covariance: HERC and NCO with the same clusters."""
    np.testing.assert_allclose(herc(COV, n_clusters=2), [
        0.4019289924665304, 0.17863510776290237, 0.24753594084820366, 0.061883985212050824, 0.11001597371031273],
        rtol=0, atol=1e-12)
    np.testing.assert_allclose(herc(COV, n_clusters=3), [
        0.5639917445417792, 0.250662997574124, 0.1281715533761897, 0.020582533622846472, 0.03659117088506045],
        rtol=0, atol=1e-12)
    np.testing.assert_allclose(nco(COV, clusters=CLUSTERS), [
        0.3290371748413513, 0.21935719855990257, 0.2170341390114252, 0.09666442746959387, 0.13790706011772702],
        rtol=0, atol=1e-5)
    np.testing.assert_allclose(nco(COV, clusters=CLUSTERS, inner="min_variance", outer="min_variance"), [
        0.5835773566482396, 1.0712308665971323e-08, 0.3189629404533144, 3.4148863885439746e-10, 0.09745969184464971],
        rtol=0, atol=1e-5)


def test_herc_agrees_with_riskfolio_on_random_matrices():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        riskfolio = pytest.importorskip("riskfolio")
        rng = np.random.default_rng(21)
        for k, n in ((4, 2), (6, 3), (9, 4), (12, 5)):
            x = pd.DataFrame(rng.standard_normal((200, k)) @ np.linalg.cholesky(spd(rng, k)[0]).T)
            peer = riskfolio.HCPortfolio(returns=x)
            w = peer.optimization(model="HERC", codependence="pearson", rm="MV", rf=0, linkage="average",
                                  method_cov="hist", k=n, leaf_order=True)
            np.testing.assert_allclose(herc(x.cov().to_numpy(), n_clusters=n), w["weights"], rtol=0, atol=1e-12)


def test_oracle_folder():
    folder = os.environ.get("PIL_ORACLES")
    if not folder:
        pytest.skip("PIL_ORACLES is not set: no folder of published numbers")
    case = json.loads((Path(folder) / "nco.json").read_text())["cases"][0]
    for name, how in (("erc_erc", {}), ("minvar_minvar", {"inner": "minvar", "outer": "minvar"})):
        weights = nco(case["input"]["cov"], clusters=case["input"]["clusters"], **how)
        np.testing.assert_allclose(weights, case["expected"][name], rtol=0, atol=1e-8)


@pytest.mark.parametrize("k", [2, 3, 5, 8, 12])
def test_every_cut_is_scipys(k):
    covs = spd(np.random.default_rng(k), k, 25)
    for n in range(1, k + 1):
        for cov, labels in zip(covs, cluster_labels(covs, n_clusters=n), strict=True):
            assert same_partition(labels, fcluster(linkage(condensed(cov)[1], "average"), n, "maxclust"))
            assert all(labels[i] == min(np.flatnonzero(labels == labels[i])) for i in range(k))


@pytest.mark.parametrize("k", [4, 6, 9])
def test_number_of_clusters_is_the_best_silhouette(k):
    metrics = pytest.importorskip("sklearn.metrics")
    covs = spd(np.random.default_rng(50 + k), k, 20)
    units = distance_units(correlation_of(covs))
    counts = _cluster_counts(units, _average_linkage(units)[0])
    for cov, count in zip(covs, counts, strict=True):
        d, flat = condensed(cov)
        tree = linkage(flat, "average")
        scores = [metrics.silhouette_score(d, fcluster(tree, n, "maxclust"), metric="precomputed")
                  for n in range(2, k)]
        assert count == 2 + int(np.argmax(np.round(scores, 10)))


def test_small_numbers_of_sleeves_are_one_cluster():
    for k in (1, 2, 3):
        cov = spd(np.random.default_rng(k), k)[0]
        assert cluster_labels(cov).tolist() == [0] * k
        np.testing.assert_allclose(nco(cov), erc(cov), rtol=1e-13)
        np.testing.assert_allclose(herc(cov), inverse_variance(cov), rtol=1e-13)


def test_one_cluster_and_single_clusters_are_the_plain_allocator():
    cov = spd(np.random.default_rng(1), 6)[0]
    alone = [[i] for i in range(6)]
    for name, plain in (("erc", erc), ("min_variance", min_variance), ("hrp", hrp)):
        for clusters in ([list(range(6))], alone):
            np.testing.assert_allclose(nco(cov, clusters=clusters, inner=name, outer=name), plain(cov), atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 10), st.integers(0, 2**32 - 1))
def test_weights_are_a_portfolio_alone_and_in_a_stack(k, seed):
    covs = spd(np.random.default_rng(seed), k, 6)
    for allocate in (nco, herc):
        stacked = allocate(covs)
        assert (stacked >= 0).all()
        np.testing.assert_allclose(stacked.sum(-1), 1.0, rtol=1e-13)
        np.testing.assert_allclose(stacked, [allocate(c) for c in covs], rtol=0, atol=1e-14)


@pytest.mark.parametrize("name", sorted(NESTED))
def test_every_nested_method_sums_to_one(name):
    covs = spd(np.random.default_rng(3), 7, 5)
    np.testing.assert_allclose(nco(covs, inner=name, outer=name).sum(-1), 1.0, rtol=1e-12)


def test_labels_and_lists_mean_the_same():
    np.testing.assert_array_equal(nco(COV, clusters=[5, 5, 2, 2, 2]), nco(COV, clusters=CLUSTERS[::-1]))


@pytest.mark.parametrize("clusters", [[[0, 1], [2, 3]], [[0, 1, 1], [2, 3, 4]], [[0, 1], [2, 3, 4], []], [0, 1, 2], []])
def test_bad_clusters_are_refused(clusters):
    with pytest.raises(InputError, match="clusters must name each of the 5 sleeves once") as error:
        nco(COV, clusters=clusters)
    assert error.value.code == "BAD_CLUSTERS"


def test_other_bad_input_is_refused():
    with pytest.raises(InputError, match="inner must be one of"):
        nco(COV, inner="mean_variance")
    with pytest.raises(InputError, match="n_clusters must be between"):
        herc(COV, n_clusters=6)
    with pytest.raises(InputError) as error:
        nco(np.ones((3, 3)), clusters=[[0, 1, 2]], inner="minvar")
    assert error.value.code == "NO_SOLUTION"
