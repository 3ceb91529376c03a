"""Allocators and cost models of other packages: found by entry point, judged like any rung, never approved."""
from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_approval import NOW, one_code, win  # noqa: F401

from pil_research.allocators import LADDER, allocate_batch, allocate_with_fallback, hrp, inverse_vol, ladder
from pil_research.config import PILConfig
from pil_research.extensions import ALLOCATOR_GROUP, COST_GROUP, extension_names, load_extension
from pil_research.research import approval as written
from pil_research.research.data import check_panel, load_panel, synthetic_panel, write_panel
from pil_research.research.panel_files import toml_value
from pil_research.research.verdict import Verdict
from pil_research.research.walk_forward import walk_forward
from pil_research.types import ConfigError

CODE = """
    import numpy as np
    import pandas as pd

    text = "no function"

    def max_div(cov):
        sd = np.sqrt(np.einsum("...ii->...i", cov))
        corr = cov / (sd[..., :, None] * sd[..., None, :])
        w = np.linalg.solve(corr, np.ones((*sd.shape, 1)))[..., 0].clip(0.0) / sd
        return w / w.sum(-1, keepdims=True)

    def short_first(cov):
        out = np.full(cov.shape[:-1], 1.0 / cov.shape[-1])
        out[0] *= -1.0
        return out

    def vandal(cov):
        cov[:] = 0.0
        return np.full(cov.shape[:-1], 1.0 / cov.shape[-1])

    def singular_second(cov):
        if len(cov) > 1 or cov[0, 0, 0] > 0.015:
            raise np.linalg.LinAlgError("singular")
        return np.full(cov.shape[:-1], 1.0 / cov.shape[-1])

    def flat(cov):
        return np.ones(len(cov))

    def broken(cov):
        return cov.no_such_thing

    def twice(panel):
        cost = (panel.instruments["half_spread_bps"] + panel.instruments["fee_bps"]) / 1e4
        return pd.DataFrame({s: pd.Series(2.0 * cost[s], panel.dates) for s in panel.symbols})

    def negative(panel):
        return -twice(panel)

    def stranger(panel):
        return twice(panel).rename(columns={panel.symbols[0]: "ZZZ"})

    def listed(panel):
        return [1.0]
"""
NAMES = ("max_div", "short_first", "vandal", "singular_second", "flat", "broken", "text", "absent")
COSTS = ("twice", "negative", "stranger", "listed")
Install = Callable[..., Path]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Put a small installed package on the path: a module, and metadata with its entry points."""
    def put(package: str = "thirdparty", allocators: tuple[str, ...] = NAMES, costs: tuple[str, ...] = COSTS) -> Path:
        site = tmp_path / package
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (site / f"{package}_code.py").write_text(textwrap.dedent(CODE))
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        groups = {ALLOCATOR_GROUP: allocators, COST_GROUP: costs}
        (info / "entry_points.txt").write_text("".join(
            f"[{g}]\n" + "".join(f"{n} = {package}_code:{n}\n" for n in names) for g, names in groups.items()))
        monkeypatch.syspath_prepend(str(site))
        monkeypatch.delitem(sys.modules, f"{package}_code", raising=False)
        return site
    return put


def covs(n: int = 4, k: int = 3) -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((n, 200, k)) * np.array([0.01, 0.02, 0.03])[:k]
    return np.einsum("nti,ntj->nij", x, x) / 200


def test_the_configuration_takes_the_form_and_nothing_else() -> None:
    assert PILConfig().replace(**{"allocation.method": "ext:max_div"}).allocation.method == "ext:max_div"
    for bad in ("ext:", "ext:Max", "ext:1a", "ext:a-b", "ext:a b", "ext:NAME", "max_div", "ext:a\n", "EXT:a"):
        with pytest.raises(ConfigError) as e:
            PILConfig().replace(**{"allocation.method": bad})
        assert e.value.code == "CONFIG_CHOICE"


def test_a_published_allocator_stands_above_the_ladder(install: Install) -> None:
    install()
    assert ladder("ext:max_div") == ("ext:max_div", *LADDER)
    c = covs()
    weights, attempts = allocate_with_fallback(c, "ext:max_div")
    assert attempts == [("ext:max_div", "ok")] and weights.shape == (4, 3)
    single, _ = allocate_with_fallback(c[2], "ext:max_div")
    np.testing.assert_allclose(single, weights[2], atol=1e-14)
    np.testing.assert_allclose(weights, inverse_vol(c), atol=0.05)  # nearly uncorrelated: close to inverse volatility
    batch, rung = allocate_batch(c, "ext:max_div", active=[[1, 1, 0]] * 4)
    assert not rung.any() and not batch[:, 2].any() and np.allclose(batch.sum(1), 1.0)


def test_an_answer_that_is_no_allocation_goes_to_the_next_rung(install: Install) -> None:
    install()
    c = covs()
    weights, rung = allocate_batch(c, "ext:short_first")
    assert rung.tolist() == [1, 0, 0, 0]
    np.testing.assert_array_equal(weights[0], hrp(c[0]))
    np.testing.assert_allclose(weights[1:], 1.0 / 3.0)
    _, attempts = allocate_with_fallback(c[0], "ext:short_first")
    assert attempts == [("ext:short_first", "NO_SOLUTION"), ("hrp", "ok")]


def test_a_faulty_covariance_never_reaches_it(install: Install) -> None:
    install()
    c = covs()
    c[1, 0, 1] = c[1, 1, 0] = np.nan
    _, rung = allocate_batch(c, "ext:max_div")
    assert rung.tolist() == [0, 3, 0, 0]  # a missing correlation: inverse volatility, as for HRP


def test_one_singular_matrix_costs_only_its_own_day(install: Install) -> None:
    install()
    c = np.stack([np.diag([0.01, 0.02]), np.diag([0.02, 0.01]), np.diag([0.01, 0.01])])
    weights, rung = allocate_batch(c, "ext:singular_second")
    assert rung.tolist() == [0, 1, 0]
    np.testing.assert_array_equal(weights[1], hrp(c[1]))


def test_it_cannot_change_what_the_others_see(install: Install) -> None:
    install()
    c = covs()
    before = c.copy()
    allocate_batch(c, "ext:vandal")
    np.testing.assert_array_equal(c, before)


@pytest.mark.parametrize(("name", "code", "said"), [
    ("nobody", "UNKNOWN_EXTENSION", "known: .*max_div"), ("text", "BAD_EXTENSION", "must be a function"),
    ("absent", "BAD_EXTENSION", "cannot be loaded"), ("flat", "BAD_EXTENSION", r"must answer \(4, 3, 3\) with \(4, 3\)"),
    ("broken", "BAD_EXTENSION", "AttributeError")])
def test_faults_of_the_package_are_typed_errors(install: Install, name: str, code: str, said: str) -> None:
    install()
    with pytest.raises(ConfigError, match=said) as e:
        allocate_with_fallback(covs(), f"ext:{name}")
    assert e.value.code == code and e.value.subject == name


def test_two_publishers_of_a_name_are_an_error(install: Install) -> None:
    install()
    install("another", ("max_div",), ())
    with pytest.raises(ConfigError, match="published 2 times, by another, thirdparty") as e:
        ladder("ext:max_div")
    assert e.value.code == "DUPLICATE_EXTENSION"
    assert ladder("ext:vandal")[0] == "ext:vandal"


def test_the_same_package_twice_on_the_path_is_no_duplicate(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    site = install()
    monkeypatch.syspath_prepend(str(site.parent / "." / site.name))
    assert callable(load_extension(ALLOCATOR_GROUP, "max_div"))


def test_names_disappear_with_the_package(install: Install) -> None:
    site = install()
    assert set(NAMES) <= set(extension_names(ALLOCATOR_GROUP)) and load_extension(ALLOCATOR_GROUP, "max_div")
    sys.path.remove(str(site))
    with pytest.raises(ConfigError, match="no installed package publishes 'max_div'"):
        load_extension(ALLOCATOR_GROUP, "max_div")


def test_it_walks_forward_and_its_days_are_counted(install: Install) -> None:
    install()
    panel = synthetic_panel(1, n_sleeves=6, n_symbols=8, n_days=420)
    base = PILConfig()
    walked = walk_forward(panel, {m: base.replace(**{"allocation.method": m}) for m in ("ext:max_div", "hrp")},
                          start=panel.dates[-60])
    assert walked.rungs.loc["ext:max_div", "ext:max_div"] > 0 and walked.rungs.loc["hrp", "ext:max_div"] == 0
    last = {n: w.iloc[-1] for n, w in walked.sleeve_weights.items()}
    assert (last["ext:max_div"] - last["hrp"]).abs().max() > 1e-4


def test_approval_refuses_it(install: Install, win: Verdict, tmp_path: Path) -> None:  # noqa: F811
    from dataclasses import replace

    install()
    assert win.config is not None
    ext = replace(win, config=win.config.replace(**{"allocation.method": "ext:max_div"}))
    with pytest.raises(ConfigError) as e:
        written.write_approval(ext, tmp_path / "approval.json", now=NOW)
    assert e.value.code == "APPROVAL_CONFIG" and not (tmp_path / "approval.json").exists()


# ---------------------------------------------------------------- cost models

@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_panel(synthetic_panel(1, n_sleeves=2, n_symbols=4, n_days=400), tmp_path / "mine", fmt="csv")


def name_model(folder: Path, value: object) -> None:
    file = folder / "panel.toml"
    file.write_text(file.read_text() + f"cost_model = {toml_value(value)}\n")


def test_a_cost_model_becomes_the_schedule(install: Install, folder: Path) -> None:
    plain = load_panel(folder)
    install()
    name_model(folder, "twice")
    panel = load_panel(folder)
    table = (plain.instruments["half_spread_bps"] + plain.instruments["fee_bps"]) / 1e4
    assert plain.cost_schedule is None and panel.cost_schedule is not None
    np.testing.assert_allclose(panel.cost_schedule.iloc[-1], 2.0 * table)
    assert panel.fingerprint() != plain.fingerprint() and "cost model twice" in panel.notes[-1]
    assert not [d for d in check_panel(folder) if d.severity == "error"]
    start = plain.dates[-40]
    ungated = PILConfig().replace(**{"turnover.gate": False})  # the gate would trade less where it is dearer
    cheap, dear = (float(walk_forward(p, ungated, start=start).costs.to_numpy().sum()) for p in (plain, panel))
    assert 1.2 * cheap < dear < 2.0 * cheap  # impact stays as it was


@pytest.mark.parametrize(("model", "said"), [("negative", "a cost is negative"), ("stranger", "symbol ZZZ is not in the panel"),
                                             ("listed", "must give a DataFrame, got list")])
def test_a_bad_schedule_is_refused(install: Install, folder: Path, model: str, said: str) -> None:
    install()
    name_model(folder, model)
    with pytest.raises(ConfigError, match=said) as e:
        load_panel(folder)
    assert e.value.code == "BAD_EXTENSION"


def test_data_check_names_the_fault(install: Install, folder: Path) -> None:
    name_model(folder, "twice")
    codes = {d.code for d in check_panel(folder) if d.severity == "error"}
    assert codes == {"UNKNOWN_EXTENSION"}
    install()
    (folder / "cost_schedule.csv").write_text((folder / "returns.csv").read_text())
    assert "TWICE" in {d.code for d in check_panel(folder) if d.severity == "error"}


def test_a_cost_model_needs_a_name(folder: Path) -> None:
    name_model(folder, 3)
    assert {d.code for d in check_panel(folder) if d.severity == "error"} == {"BAD_NAME"}
