"""HRP of riskfolio-lib and skfolio on one window of returns, or None where the library is absent."""
from __future__ import annotations

import warnings
from collections.abc import Callable

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


def skfolio_hrp() -> HRP | None:
    """Single linkage, everything else as it comes; fitted on an array, its fastest way."""
    try:
        from skfolio.cluster import HierarchicalClustering, LinkageMethod
        from skfolio.optimization import HierarchicalRiskParity
        from skfolio.seriation import HierarchicalSeriation
    except ImportError:
        return None

    def weights(window: Floats) -> Floats:
        tree = HierarchicalClustering(linkage_method=LinkageMethod.SINGLE)
        model = HierarchicalRiskParity(seriation_estimator=HierarchicalSeriation(hierarchical_clustering_estimator=tree))
        return np.asarray(model.fit(window).weights_)

    return weights


def available() -> dict[str, HRP]:
    """The peers that can be imported, by name."""
    found = {"riskfolio-lib": riskfolio_hrp(), "skfolio": skfolio_hrp()}
    return {name: hrp for name, hrp in found.items() if hrp is not None}
