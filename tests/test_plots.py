"""Plots: the SVG that goes into a page."""
from __future__ import annotations

import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from pil_research.research import plots
from pil_research.research.example_study import example_study
from pil_research.research.ladder import compare
from pil_research.research.metrics import drawdowns


@pytest.fixture(scope="module")
def elements() -> dict[str, str]:
    s = example_study(seed=2, n_days=700).base
    draw = {"gap": lambda ax: plots.plot_sharpe_differences({"lag 0": compare(s, n_draws=200)}, ax=ax),
            "value": lambda ax: plots.plot_net_value(s.returns, ax=ax),
            "under": lambda ax: plots.plot_underwater(drawdowns(s.returns), ax=ax),
            "vol": lambda ax: plots.plot_rolling_vol(s.returns, 0.5 * s.vol_target["HRP"], ax=ax),
            "weights": lambda ax: plots.plot_sleeve_weights(s.sleeve_weights["HRP"], ax=ax),
            "gapline": lambda ax: plots.plot_divergence(s.erc_divergence["HRP"], ax=ax)}
    out = {}
    for name, f in draw.items():
        fig, ax = plots.figure()
        assert f(ax) is ax
        out[name] = plots.svg(fig, name, f'"{name}" & <more>')
    return out


def test_svg_is_well_formed_labelled_and_clean(elements: dict[str, str]) -> None:
    ids: list[str] = []
    for name, text in elements.items():
        root = ET.fromstring(text)
        assert root.get("role") == "img" and root.get("aria-label") == f'"{name}" & <more>'
        assert root.get("viewBox") and root.get("width") is None
        for word in ("<metadata", "matplotlib.org", "<!--", "<style", "Date"):
            assert word not in text
        ids += [e.get("id") for e in root.iter() if e.get("id")]  # type: ignore[misc]
        assert "<text" in text  # text stays text
        assert len(text) < 120_000
    assert len(ids) == len(set(ids))


def test_colours_are_variables_and_references_resolve(elements: dict[str, str]) -> None:
    import re

    for text in elements.values():
        assert "var(--ink)" in text and "var(--c0)" in text
        known = set(re.findall(r'id="([^"]+)"', text))
        used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
        assert used <= known


def test_same_data_same_bytes() -> None:
    def once() -> str:
        fig, ax = plots.figure()
        plots.plot_net_value(example_study(seed=2, n_days=300).base.returns, ax=ax)
        return plots.svg(fig, "a", "a")
    assert once() == once()


def test_thin_keeps_the_last_day_and_the_worst() -> None:
    days = pd.bdate_range("2000-01-03", periods=7503)
    x = pd.DataFrame({"d": np.zeros(7503)}, index=days)
    x.iloc[4321] = 0.2
    worst = plots.thin(x, "max")
    assert len(worst) <= 502 and worst["d"].max() == 0.2 and worst.index[-1] == days[-1]
    assert len(plots.thin(x.iloc[:20])) == 4
    assert plots.thin(x)["d"].iloc[-1] == x["d"].iloc[-1]


def test_no_global_figure_list() -> None:
    import matplotlib.pyplot as plt

    before = plt.get_fignums()
    plots.figure()
    assert plt.get_fignums() == before


def test_labels_do_not_overlap() -> None:
    fig, ax = plots.figure()
    ax.set_ylim(0, 1)
    plots.label_ends(ax, {f"n{i}": (0.5, plots.INK) for i in range(8)}, 1.0)
    y = sorted(t.xyann[1] for t in ax.texts)
    assert min(np.diff(y)) >= 0.054 and max(y) <= 1.0 + 1e-9 and {t.xy for t in ax.texts} == {(1.0, 0.5)}
