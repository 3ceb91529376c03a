"""HRP of riskfolio-lib and skfolio on one window of returns, or None where the library is absent."""
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


def available() -> dict[str, HRP]:
    """The peers that can be imported, by name."""
    found = {"riskfolio-lib": riskfolio_hrp(), "skfolio": skfolio_hrp()}
    return {name: hrp for name, hrp in found.items() if hrp is not None}
