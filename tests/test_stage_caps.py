"""Stage 4: caps only shrink, hold jointly, and the last line refuses what is above them."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.stages.caps import (
    cap_book,
    cap_excess,
    check_caps,
    cluster_cap_applies,
    cluster_symbols,
    cure_caps,
    water_level,
)
from pil_research.types import InputError, InvariantError

CAPS = {"name": 0.15, "cluster": 0.5, "net": 1.0, "gross": 2.0}


def random_case(seed, n_configs=4, m=20):
    rng = np.random.default_rng(seed)
    book = rng.normal(rng.normal(0, 0.1), rng.choice([0.02, 0.1, 0.4]), (n_configs, m))
    book[rng.random(book.shape) < 0.2] = 0.0
    caps = {"name": rng.choice([0.05, 0.15, 0.3], n_configs), "cluster": rng.choice([0.2, 0.5, 1.0], n_configs),
                "net": rng.choice([0.0, 0.1, 0.5, 1.0], n_configs), "gross": rng.choice([0.3, 1.0, 2.0], n_configs)}
    return rng, book, caps, rng.integers(-1, 4, m)


def brute_level(values, total):
    lo, hi = 0.0, values.max()
    for _ in range(200):
        mid = 0.5 * (lo + hi)
        lo, hi = (mid, hi) if np.minimum(values, mid).sum() < total else (lo, mid)
    return hi


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_all_caps_hold_and_nothing_grows(seed):
    _, book, caps, clusters = random_case(seed)
    out = cap_book(book, **caps, clusters=clusters).book
    assert (np.abs(out) <= np.abs(book)).all() and (out * book >= 0).all()
    for ratio in cap_excess(out, **caps, clusters=clusters).values():
        assert (ratio <= 1.0 + 1e-9).all() or (caps["net"] == 0).any()
    assert (np.abs(out.sum(1)) <= caps["net"] + 1e-9).all()
    check_caps(out, **caps, clusters=clusters, tolerance=1.0)
    again = cap_book(out, **caps, clusters=clusters)
    np.testing.assert_allclose(again.book, out, atol=1e-12)
    assert not any(b.any() for b in again.bound.values())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_rows_permutations_and_mirror(seed):
    rng, book, caps, clusters = random_case(seed)
    out = cap_book(book, **caps, clusters=clusters)
    for i in range(len(book)):
        one = cap_book(book[i], **{k: v[i] for k, v in caps.items()}, clusters=clusters)
        np.testing.assert_allclose(one.book, out.book[i], atol=1e-14)
        assert all(bool(one.bound[k]) == bool(out.bound[k][i]) for k in out.bound)
    order = rng.permutation(book.shape[1])
    np.testing.assert_allclose(cap_book(book[:, order], **caps, clusters=clusters[order]).book, out.book[:, order],
                               atol=1e-14)
    np.testing.assert_array_equal(cap_book(-book, **caps, clusters=clusters).book, -out.book)
    wider = cap_book(np.insert(book, 3, 0.0, axis=1), **caps, clusters=np.insert(clusters, 3, 0))
    np.testing.assert_allclose(np.delete(wider.book, 3, axis=1), out.book, atol=1e-14)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=12), st.floats(0, 1))
def test_water_level_is_exact(values, share):
    x = np.array(values)
    total = share * x.sum()
    level = water_level(x, total)
    assert np.minimum(x, level).sum() == pytest.approx(total, abs=1e-12 * max(1, x.sum()))
    assert np.minimum(x, level).sum() == pytest.approx(np.minimum(x, brute_level(x, total)).sum(), abs=1e-9)


def test_net_cap_clips_the_heavy_side_to_a_common_level():
    out = cap_book([0.5, 0.4, 0.1, -0.2], name=1, cluster=9, net=0.3, gross=9, clusters=[-1] * 4)
    np.testing.assert_allclose(out.book, [0.2, 0.2, 0.1, -0.2], atol=1e-15)
    assert out.bound["net"] and not out.bound["gross"]
    short = cap_book([-0.5, -0.4, -0.1, 0.2], name=1, cluster=9, net=0.3, gross=9, clusters=[-1] * 4)
    np.testing.assert_array_equal(short.book, -out.book)


def test_cluster_switch_no_cluster_and_exact_caps():
    free = cap_book([0.4, 0.4], name=1, cluster=0.5, net=9, gross=9, clusters=[-1, -1])
    assert not free.bound["cluster"]
    off = cap_book([0.4, 0.4], name=1, cluster=0.5, net=9, gross=9, clusters=[0, 0], cluster_on=False)
    np.testing.assert_array_equal(off.book, [0.4, 0.4])
    mixed = cap_book(np.full((2, 2), 0.4), name=1, cluster=0.5, net=9, gross=9, clusters=[0, 0], cluster_on=[True, False])
    np.testing.assert_allclose(mixed.book, [[0.25, 0.25], [0.4, 0.4]])
    at_cap = np.array([0.15, 0.15 + 1e-11])
    assert cap_book(at_cap, **CAPS, clusters=[0, 1]).book is at_cap  # a last bit is no trade
    per_name = cap_book([0.3, 0.3], name=[0.1, 0.2], cluster=9, net=9, gross=9, clusters=[0, 1])
    np.testing.assert_allclose(per_name.book, [0.1, 0.2])


def test_cure_tolerates_drift_and_then_returns_to_the_cap():
    kept = cure_caps([0.164, 0.10], **CAPS, clusters=[0, 1])
    assert not kept.cured and kept.book[0] == 0.164
    cured = cure_caps([0.166, 0.164], **CAPS, clusters=[0, 1])
    assert cured.cured and cured.bound["name"]
    np.testing.assert_array_equal(cured.book, [0.15, 0.164])
    strict = cure_caps([0.166, 0.164], **CAPS, clusters=[0, 1], tolerance=1.0)
    np.testing.assert_array_equal(strict.book, [0.15, 0.15])


WIDE = {"name": 9.0, "cluster": 9.0, "net": 9.0, "gross": 9.0}


@pytest.mark.parametrize(("which", "clusters", "at_cap"), [
    ("name", [-1], [0.4]), ("cluster", [0, 0, 1, 1], [0.2, 0.2, 0.1, 0.1]), ("net", [-1] * 4, [0.1, 0.1, 0.1, 0.1]),
    ("gross", [-1] * 4, [0.1, -0.1, 0.1, -0.1])])
def test_every_cap_tolerates_a_tenth_and_no_more(which, clusters, at_cap):
    """A book 8 % over one cap of 0.4 stays; 12 % over, it returns to that cap; and a tighter tolerance cures the first one."""
    book = np.array(at_cap)
    caps = {**WIDE, which: 0.4}
    inside = cure_caps(1.08 * book, **caps, clusters=clusters)
    assert not inside.cured and not inside.bound[which] and np.array_equal(inside.book, 1.08 * book)
    beyond, tight = (cure_caps(x * book, **caps, clusters=clusters, tolerance=t) for x, t in ((1.12, 1.1), (1.08, 1.05)))
    for out in (beyond, tight):
        assert out.cured and [k for k, v in out.bound.items() if v] == [which]
        assert cap_excess(out.book, **caps, clusters=clusters)[which].max() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("which", ["name", "cluster", "net", "gross"])
def test_only_a_cap_that_is_still_breached_makes_a_frozen_symbol_uncurable(which):
    """Beside a free symbol that can make room, a frozen one at the cap is curable; above the cap it is not, nor are those of
    another cluster."""
    clusters, caps = [0, 0, 1, 1], {**WIDE, which: 0.3}
    frozen = np.array([True, False, True, False])
    curable = cure_caps([0.15, 0.2, 0.1 if which != "name" else 0.0, 0.0], **caps, clusters=clusters, frozen=frozen)
    assert not curable.uncurable.any()
    stuck = cure_caps([0.5, 0.2, 0.01, 0.0], **caps, clusters=clusters, frozen=frozen)
    assert stuck.uncurable.tolist() == [True, False, which in ("net", "gross"), False]
    other_side = cure_caps([0.5, 0.0, -0.1, 0.0], **caps, clusters=clusters, frozen=frozen)
    assert other_side.uncurable.tolist() == [True, False, which == "gross", False]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_cure_leaves_frozen_symbols_and_passes_the_last_line(seed):
    rng, book, caps, clusters = random_case(seed)
    frozen = rng.random(book.shape) < 0.25
    out = cure_caps(book, **caps, clusters=clusters, frozen=frozen)
    np.testing.assert_array_equal(out.book[frozen], book[frozen])
    assert (np.abs(out.book) <= np.abs(book) + 1e-15).all() and (out.book * book >= 0).all()
    assert not (out.uncurable & ~frozen).any()
    frozen_net = np.abs((book * frozen).sum(1))
    if (frozen_net <= caps["net"]).all():
        check_caps(out.book, **caps, clusters=clusters, exempt=frozen)
    free = cure_caps(book, **caps, clusters=clusters, frozen=np.zeros(book.shape[1], bool))
    check_caps(free.book, **caps, clusters=clusters)
    assert not free.uncurable.any()


def test_others_make_room_for_a_frozen_symbol():
    out = cure_caps([0.5, 0.4, 0.4], name=1, cluster=9, net=9, gross=1.0, clusters=[-1] * 3, frozen=[True, False, False])
    np.testing.assert_allclose(out.book, [0.5, 0.25, 0.25])
    alone = cure_caps([1.5, 0.4], name=1, cluster=9, net=9, gross=1.0, clusters=[-1] * 2, frozen=[True, False])
    np.testing.assert_allclose(alone.book, [1.5, 0.0])
    assert alone.uncurable.tolist() == [True, False]
    check_caps(alone.book, name=1, cluster=9, net=9, gross=1.0, clusters=[-1] * 2, exempt=[True, False])
    with pytest.raises(InvariantError, match="gross of book"):
        check_caps([1.5, 0.1], name=2, cluster=9, net=9, gross=1.0, clusters=[-1] * 2, exempt=[True, False])


@pytest.mark.parametrize("key,book", [("name", [0.17, 0.0, 0.0, 0.0, 0, 0, 0, 0]), ("cluster", [0.14] * 4 + [0] * 4),
                                      ("net", [0.14] * 8), ("gross", [0.14, -0.14] * 8)])
def test_last_line_names_the_constraint(key, book):
    groups = {"cluster": [0] * len(book)}.get(key, [-1] * len(book))
    with pytest.raises(InvariantError, match=f"^{key} of") as error:
        check_caps(book, **CAPS, clusters=groups)
    assert error.value.code == "CAP_BREACHED" and error.value.field == key and error.value.value > error.value.limit
    assert float(cap_excess(book, **CAPS, clusters=groups)[key]) > 1.1


def test_last_line_is_a_billionth_wide():
    edge = 0.15 * 1.1
    check_caps([edge + 0.9e-9], **CAPS, clusters=[0])
    with pytest.raises(InvariantError):
        check_caps([edge + 1.2e-9], **CAPS, clusters=[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_never_passes(bad):
    with pytest.raises(InputError, match="must be finite") as error:
        cap_book([[0.1, 0.2], [0.1, bad]], **CAPS, clusters=[0, 1])
    assert error.value.code == "NON_FINITE" and error.value.subject == "1"
    with pytest.raises(InputError, match="must be finite"):
        cure_caps([0.1, bad], **CAPS, clusters=[0, 1])
    for exempt in (None, [False, True]):  # what may not be traded is exempt from caps, not from being a number
        with pytest.raises(InvariantError, match="name of symbol 1") as broken:
            check_caps([0.1, bad], **CAPS, clusters=[0, 1], exempt=exempt)
        assert broken.value.code == "NON_FINITE"


@pytest.mark.parametrize("value", [-0.1, np.nan])
def test_bad_cap_is_refused(value):
    for key in CAPS:
        with pytest.raises(InputError, match=f"cap {key} must be zero or more"):
            cap_book([0.1], **{**CAPS, key: value}, clusters=[0])


def test_zero_caps_close_everything():
    for key in CAPS:
        out = cap_book([0.1, 0.2], **{**CAPS, key: 0.0}, clusters=[0, 1]).book
        np.testing.assert_allclose(out, 0.0, atol=1e-16)


def test_clusters_by_average_linkage():
    rho = np.full((5, 5), 0.1)
    rho[:2, :2], rho[2:4, 2:4] = 0.7, 0.5
    np.fill_diagonal(rho, 1.0)
    assert cluster_symbols(rho).tolist() == [0, 0, 1, 1, 2]  # exactly at the threshold joins
    assert cluster_symbols(rho, 0.05).tolist() == [0] * 5
    rho[1] = rho[:, 1] = np.nan
    assert cluster_symbols(rho).tolist() == [0, -1, 1, 1, 2]
    assert cluster_symbols(np.full((2, 2), np.nan)).tolist() == [-1, -1]
    assert cluster_symbols(np.ones((1, 1))).tolist() == [0]
    assert cluster_cap_applies([0, 1]) and not cluster_cap_applies([1, 1, -1]) and not cluster_cap_applies([-1])
    with pytest.raises(InputError, match="square matrix"):
        cluster_symbols(np.ones((2, 3)))


def test_inputs_are_not_changed():
    book = np.full((2, 3), 0.9)
    before = book.copy()
    cap_book(book, **CAPS, clusters=[0, 0, 1])
    cure_caps(book, **CAPS, clusters=[0, 0, 1], frozen=[True, False, False])
    np.testing.assert_array_equal(book, before)
