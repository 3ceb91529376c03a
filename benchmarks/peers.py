"""What other libraries do, each as one function of plain arrays, or None where the library is absent."""
from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
HRP = Callable[[Floats], Floats]


def riskfolio_hrp() -> HRP | None:
    """Single linkage, optimal leaf ordering, sample covariance: the reading that our `variant="direct"` follows."""
    try:
        import riskfolio as rp
    except ImportError:
        return None

    def weights(window: Floats) -> Floats:
        frame = pd.DataFrame(window, columns=[f"s{i:02d}" for i in range(window.shape[1])])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = rp.HCPortfolio(returns=frame).optimization(model="HRP", codependence="pearson", rm="MV", rf=0,
                                                             linkage="single", leaf_order=True)
        return got["weights"].reindex(frame.columns).to_numpy()

    return weights


def skfolio_model() -> Any | None:
    """Single linkage, everything else as it comes."""
    try:
        from skfolio.cluster import HierarchicalClustering, LinkageMethod
        from skfolio.optimization import HierarchicalRiskParity
        from skfolio.seriation import HierarchicalSeriation
    except ImportError:
        return None
    tree = HierarchicalClustering(linkage_method=LinkageMethod.SINGLE)
    return HierarchicalRiskParity(seriation_estimator=HierarchicalSeriation(hierarchical_clustering_estimator=tree))


def skfolio_hrp() -> HRP | None:
    """Fitted on an array, its fastest way; a new model a call."""
    if skfolio_model() is None:
        return None
    return lambda window: np.asarray(skfolio_model().fit(window).weights_)


def skfolio_erc() -> HRP | None:
    """Risk budgeting with equal budgets, fitted on an array."""
    try:
        from skfolio.optimization import RiskBudgeting
    except ImportError:
        return None
    return lambda window: np.asarray(RiskBudgeting().fit(window).weights_)


def skfolio_walk() -> Callable[[Floats, int], object] | None:
    """skfolio's own walk-forward of HRP: refitted every day on `window` rows, predicting the next one."""
    if skfolio_model() is None:
        return None
    from skfolio.model_selection import WalkForward, cross_val_predict

    def run(returns: Floats, window: int) -> object:
        dates = pd.bdate_range("2000-01-03", periods=len(returns))
        frame = pd.DataFrame(returns, index=dates, columns=[f"s{i:02d}" for i in range(returns.shape[1])])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return cross_val_predict(skfolio_model(), frame, cv=WalkForward(test_size=1, train_size=window))

    return run


def pypfopt_hrp(given: bool = False) -> HRP | None:
    """Single linkage without reordering; from a window of returns, or from a covariance that is `given`."""
    try:
        from pypfopt import HRPOpt
    except ImportError:
        return None

    def weights(x: Floats) -> Floats:
        names = [f"s{i:02d}" for i in range(x.shape[1])]
        frame = pd.DataFrame(x, columns=names, index=names if given else None)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            got = HRPOpt(cov_matrix=frame).optimize() if given else HRPOpt(frame).optimize()
        return np.array([got[n] for n in names])

    return weights


def pypfopt_shrinkage() -> HRP | None:
    """Its constant-correlation Ledoit-Wolf covariance of a window, per bar."""
    try:
        from pypfopt.risk_models import CovarianceShrinkage
    except ImportError:
        return None

    def cov(window: Floats) -> Floats:
        shrunk = CovarianceShrinkage(pd.DataFrame(window), returns_data=True, frequency=1)
        return np.asarray(shrunk.ledoit_wolf(shrinkage_target="constant_correlation"))

    return cov


def riskfolio_erc() -> HRP | None:
    """Its risk-parity optimisation of variance, sample covariance."""
    try:
        import riskfolio as rp
    except ImportError:
        return None

    def weights(window: Floats) -> Floats:
        frame = pd.DataFrame(window, columns=[f"s{i:02d}" for i in range(window.shape[1])])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            port = rp.Portfolio(returns=frame)
            port.assets_stats(method_mu="hist", method_cov="hist")
            got = port.rp_optimization(model="Classic", rm="MV", rf=0, b=None, hist=True)
        return got["weights"].reindex(frame.columns).to_numpy()

    return weights


def holdout_logits() -> Callable[[Floats, int], Floats] | None:
    """holdout-backtest: logits of every split of (T, N) returns."""
    try:
        from holdout.pbo import probability_of_backtest_overfitting as pbo
    except ImportError:
        return None
    return lambda returns, blocks: np.asarray(pbo(returns, n_blocks=blocks).logits)


def purgedcv_logits() -> Callable[[Floats, int], Floats] | None:
    """purgedcv: logits of every split; a loop over splits and configurations."""
    try:
        from purgedcv import probability_of_backtest_overfitting as pbo
    except ImportError:
        return None
    return lambda returns, blocks: np.asarray(pbo(np.ascontiguousarray(returns.T), n_splits=blocks).logits)


def pypbo_logits() -> Callable[[Floats, int], Floats] | None:
    """pypbo, as published: keeps both halves of every split, so only few blocks fit in memory."""
    try:
        from pypbo import pbo
    except ImportError:
        return None

    def sharpe(x: Floats) -> Floats:
        return np.asarray(x.mean(axis=0) / x.std(axis=0, ddof=1))

    return lambda returns, blocks: np.asarray(pbo(returns, S=blocks, metric_func=sharpe, threshold=0.0, n_jobs=1).logits)


def bt_equal() -> Callable[[Floats], object] | None:
    """bt: equal weights of K sleeves, rebalanced daily, from their returns."""
    try:
        import bt
    except ImportError:
        return None

    def run(returns: Floats) -> object:
        names = [f"s{i:02d}" for i in range(returns.shape[1])]
        prices = pd.DataFrame(100.0 * np.cumprod(1.0 + returns, axis=0), columns=names,
                              index=pd.bdate_range("2000-01-03", periods=len(returns)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            steps = [bt.algos.RunDaily(), bt.algos.SelectAll(), bt.algos.WeighEqually(), bt.algos.Rebalance()]
            plan = bt.Strategy("equal", steps)
            return bt.run(bt.Backtest(plan, prices, integer_positions=False, progress_bar=False), progress_bar=False)

    return run


def hrp_peers() -> dict[str, HRP]:
    """HRP from a window of returns, by the peers that can be imported."""
    found = {"riskfolio-lib": riskfolio_hrp(), "skfolio": skfolio_hrp(), "PyPortfolioOpt": pypfopt_hrp()}
    return {name: hrp for name, hrp in found.items() if hrp is not None}


def erc_peers() -> dict[str, HRP]:
    """Equal risk contributions from a window of returns."""
    found = {"skfolio": skfolio_erc(), "riskfolio-lib": riskfolio_erc()}
    return {name: erc for name, erc in found.items() if erc is not None}
