"""Estimator objects: scikit-learn's conventions without scikit-learn, and skfolio's machinery around them."""
from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.testing as npt
import pandas as pd
import pytest

from pil_research.allocators import allocate_with_fallback, erc, hrp, risk_contributions
from pil_research.config import PILConfig
from pil_research.estimators.covariance import ledoit_wolf
from pil_research.research.adapters import as_skfolio, utc_returns
from pil_research.research.estimators_api import ERC, HRP, AllocatorBase, EqualWeight, InverseVol, Ladder
from pil_research.types import InputError

KINDS: tuple[type[AllocatorBase], ...] = (HRP, ERC, InverseVol, EqualWeight, Ladder)
NAMES = ["trend", "carry", "vol", "macro", "pairs"]


@pytest.fixture(autouse=True)
def _own_plot_settings() -> Iterator[None]:
    """Some peers change matplotlib's settings when they are imported; other tests must not see that."""
    import matplotlib

    with matplotlib.rc_context():
        yield


def table(rows: int = 400, seed: int = 0) -> pd.DataFrame:
    g = np.random.default_rng(seed)
    mix = np.eye(5) + 0.3 * g.standard_normal((5, 5))
    return pd.DataFrame(0.01 * g.standard_normal((rows, 5)) @ mix * [1.0, 2.0, 0.5, 1.5, 3.0], columns=NAMES,
                        index=pd.bdate_range("2019-01-01", periods=rows))


@pytest.mark.parametrize("kind", KINDS)
def test_weights_carry_names_sum_to_one_and_none_is_negative(kind: type[AllocatorBase]) -> None:
    X = table()
    e = kind().fit(X)
    assert list(e.weights_.index) == NAMES == list(e.feature_names_in_) and e.n_features_in_ == 5
    assert abs(e.weights_.sum() - 1.0) < 1e-12 and (e.weights_ >= 0.0).all()
    again = kind().fit(X.to_numpy())
    assert isinstance(again.weights_, np.ndarray) and not hasattr(again, "feature_names_in_")
    npt.assert_allclose(again.weights_, e.weights_, rtol=0.0, atol=1e-14)  # a table is sorted by name, an array is not
    assert list(e.covariance_.columns) == NAMES and 0.0 <= e.shrinkage_ <= 1.0


def test_weights_are_those_of_the_allocators() -> None:
    X = table().to_numpy()
    cov, _ = ledoit_wolf(X, target="constant_correlation")
    npt.assert_array_equal(HRP().fit(X).weights_, hrp(cov))
    npt.assert_array_equal(ERC().fit(X).weights_, erc(cov))
    budget = np.array([0.4, 0.3, 0.1, 0.1, 0.1])
    npt.assert_array_equal(ERC(budget=budget).fit(X).weights_, erc(cov, budget=budget))
    aged, _ = ledoit_wolf(X, target="identity", half_life=63)
    npt.assert_array_equal(HRP(variant="paper", target="identity", half_life=63).fit(X).weights_, hrp(aged, variant="paper"))
    npt.assert_allclose(EqualWeight().fit(X).weights_, 0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_permuting_or_scaling_the_columns_permutes_or_rescales_the_weights(kind: type[AllocatorBase]) -> None:
    X = table()
    w = kind().fit(X).weights_
    mixed = kind().fit(X[["vol", "pairs", "trend", "macro", "carry"]]).weights_
    npt.assert_allclose(mixed[NAMES], w, atol=1e-12)
    npt.assert_allclose(kind().fit(7.0 * X).weights_, w, atol=1e-10)


@pytest.mark.parametrize("kind", KINDS)
def test_the_order_of_columns_changes_no_bit(kind: type[AllocatorBase]) -> None:
    for seed in range(5):
        X = table(seed=seed)[NAMES[:4]]
        X.iloc[:40, 1] = np.nan
        fits = [kind().fit(X[list(p)]) for p in itertools.permutations(X.columns)]
        first = fits[0].weights_
        for e in fits:
            assert list(e.weights_.index) == list(e.feature_names_in_) == list(e.covariance_.columns)
            npt.assert_array_equal(e.weights_[first.index], first)
            npt.assert_array_equal(e.covariance_.loc[first.index, first.index], fits[0].covariance_)


def test_a_budget_belongs_to_the_columns_as_they_stand() -> None:
    X, budget = table(), {"trend": 0.4, "carry": 0.3, "vol": 0.15, "macro": 0.1, "pairs": 0.05}
    e = ERC(budget=list(budget.values())).fit(X)
    npt.assert_allclose(risk_contributions(e.covariance_.to_numpy(), e.weights_.to_numpy()), list(budget.values()), atol=1e-8)
    mixed = ERC(budget=[budget[n] for n in sorted(NAMES)]).fit(X[sorted(NAMES)])
    npt.assert_array_equal(mixed.weights_[NAMES], e.weights_)
    with pytest.raises(InputError):
        ERC(budget=[0.5, 0.5]).fit(X)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_follow_scikit_learn(kind: type[AllocatorBase]) -> None:
    from sklearn.base import clone

    e = kind(half_life=42)
    assert e.get_params()["half_life"] == 42 and kind(**e.get_params()).get_params() == e.get_params()
    assert e.set_params(half_life=21) is e and e.half_life == 21
    copy: Any = clone(e.fit(table()))  # type: ignore[type-var]
    assert copy.get_params() == e.get_params() and not hasattr(copy, "weights_")
    with pytest.raises(InputError, match="known: "):
        e.set_params(halflife=3)
    assert repr(e).startswith(f"{kind.__name__}(") and "half_life=21" in repr(e)


def test_fitting_again_forgets_names() -> None:
    e = HRP().fit(table())
    assert not hasattr(e.fit(table().to_numpy()), "feature_names_in_")


def test_the_ladder_says_which_rung_and_why() -> None:
    X = table()
    e = Ladder(method="erc").fit(X)
    assert (e.method_used_, e.fallback_reason_) == ("erc", "")
    flat = X.assign(vol=0.0)
    cov, _ = ledoit_wolf(flat.to_numpy(), target="constant_correlation")
    weights, attempts = allocate_with_fallback(cov, "hrp")
    e = Ladder().fit(flat)
    assert e.method_used_ == attempts[-1][0] != "hrp" and "hrp: " in e.fallback_reason_
    npt.assert_array_equal(e.weights_, weights)


def test_missing_returns_are_left_out_not_filled() -> None:
    X = table()
    X.iloc[:100, 2] = np.nan
    w = HRP().fit(X).weights_
    assert np.isfinite(w).all() and abs(w.sum() - 1.0) < 1e-12
    assert w["vol"] < 1.2 * HRP().fit(X.iloc[100:]).weights_["vol"]


@pytest.mark.parametrize(("spoil", "code"), [
    (lambda x: x.assign(vol=np.where(np.arange(len(x)) == 7, np.inf, x["vol"])), "NON_FINITE"),
    (lambda x: x.set_axis(["trend", "carry", "trend", "macro", "pairs"], axis=1), "DUPLICATE_NAME"),
    (lambda x: x.assign(vol="high"), "NOT_NUMERIC"),
    (lambda x: x.iloc[:1], "SHAPE"),
    (lambda x: x["vol"], "SHAPE"),
    (lambda x: x.iloc[:, :0], "SHAPE"),
    (lambda x: x.assign(vol=np.nan), "NO_DATA")])
def test_a_table_that_is_a_mistake_is_refused_by_name(spoil: Any, code: str) -> None:
    with pytest.raises(InputError) as err:
        HRP().fit(spoil(table()))
    assert err.value.code == code
    if code == "NON_FINITE":
        assert "vol" in str(err.value) and str(table().index[7]) in str(err.value)


def test_predict_is_the_fixed_mix_of_the_same_columns() -> None:
    X, e = table(), InverseVol()
    with pytest.raises(InputError, match="fit first"):
        e.predict(X)
    e.fit(X.iloc[:300])
    out = e.predict(X.iloc[300:])
    npt.assert_allclose(out, X.iloc[300:].to_numpy() @ e.weights_.to_numpy(), rtol=0, atol=1e-16)
    assert out.index.equals(X.index[300:]) and len(e.predict(X.iloc[:1])) == 1
    with pytest.raises(InputError, match="in their order"):
        e.predict(X[NAMES[::-1]])


def test_html_is_small_plain_and_escaped() -> None:
    X = table().set_axis(["<script>alert(1)</script>", "b", "c", "d", "e"], axis=1)
    page = HRP().fit(X)._repr_html_()
    assert "<script" not in page and "&lt;script" in page and len(page) < 2_000
    wide = pd.DataFrame(np.random.default_rng(1).standard_normal((60, 300)))
    assert len(InverseVol().fit(wide)._repr_html_()) < 20_000 and "and 200 more" in InverseVol().fit(wide)._repr_html_()
    assert "not fitted" in HRP()._repr_html_()


def test_no_scikit_learn_is_needed() -> None:
    code = ("import sys; from pil_research.research.estimators_api import HRP; import numpy as np; "
            "HRP().fit(np.random.default_rng(0).standard_normal((50, 3))); "
            "print([m for m in ('sklearn', 'skfolio', 'matplotlib', 'riskfolio') if m in sys.modules])")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_skfolio_cross_val_predict_gives_the_weights_of_each_window() -> None:
    from skfolio.model_selection import WalkForward, cross_val_predict

    X = table(360)
    path: Any = cross_val_predict(as_skfolio(HRP(half_life=60)), X, cv=WalkForward(train_size=250, test_size=50))
    for i, piece in enumerate(path.portfolios):
        want = HRP(half_life=60).fit(X.iloc[50 * i: 250 + 50 * i]).weights_
        npt.assert_allclose(np.asarray(piece.weights), want, atol=1e-12)
    assert len(path.portfolios) == 2


def test_skfolio_grid_search_reaches_the_allocators_parameters() -> None:
    from skfolio.model_selection import WalkForward
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(as_skfolio(Ladder()), {"allocator__half_life": [20, 120], "allocator__method": ["hrp", "equal"]},
                          cv=WalkForward(train_size=200, test_size=50))
    search.fit(table(360))
    assert set(search.best_params_) == {"allocator__half_life", "allocator__method"}
    assert len(search.cv_results_["params"]) == 4 and np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_skfolio_agrees_on_hierarchical_risk_parity_of_a_plain_covariance() -> None:
    from skfolio.cluster import HierarchicalClustering, LinkageMethod
    from skfolio.moments import EmpiricalCovariance
    from skfolio.optimization import HierarchicalRiskParity
    from skfolio.prior import EmpiricalPrior

    X = table()
    theirs = HierarchicalRiskParity(prior_estimator=EmpiricalPrior(covariance_estimator=EmpiricalCovariance()),
                                    hierarchical_clustering_estimator=HierarchicalClustering(
                                        linkage_method=LinkageMethod.SINGLE)).fit(X)
    npt.assert_allclose(as_skfolio(HRP(target="none")).fit(X).weights_, theirs.weights_, atol=1e-10)


def test_adapter_refuses_what_is_no_allocator() -> None:
    with pytest.raises(InputError, match="fit and get_params"):
        as_skfolio(object())  # type: ignore[arg-type]


def test_quantstats_takes_a_track_as_it_is() -> None:
    import warnings

    from pil_research.research.metrics import max_drawdown, sharpe

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its plotting imports warn
        import quantstats as qs

        from pil_research.research.synthetic_panel import synthetic_panel
        from pil_research.research.walk_forward import walk_forward

        track = walk_forward(synthetic_panel(2, n_sleeves=3, n_symbols=8, n_days=500), PILConfig()).returns["hrp"]
        theirs = float(qs.stats.sharpe(track)), float(qs.stats.max_drawdown(track))
    ours = float(np.asarray(sharpe(track.to_numpy(), bars_per_year=252))), float(np.asarray(max_drawdown(track.to_numpy())))
    npt.assert_allclose(theirs[0], ours[0], rtol=1e-9)
    npt.assert_allclose(-theirs[1], ours[1], rtol=1e-9)


def test_riskfolio_takes_our_returns_and_agrees() -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import riskfolio as rp

        X = table()
        theirs = rp.HCPortfolio(returns=X).optimization(model="HRP", codependence="pearson", rm="MV", linkage="single",
                                                        leaf_order=True)
    npt.assert_allclose(HRP(target="none").fit(X).weights_, theirs["weights"].reindex(NAMES), atol=1e-10)


def test_utc_returns_for_pyfolio() -> None:
    s = pd.Series([0.01, np.nan, 0.02], index=pd.bdate_range("2020-01-01", periods=3))
    out = utc_returns(s)
    assert str(out.index.tz) == "UTC" and len(out) == 2 and s.index.tz is None
    with pytest.raises(InputError, match="without a zone"):
        utc_returns(out)
