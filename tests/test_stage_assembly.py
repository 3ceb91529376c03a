"""Stage 2: netting, wrappers, crossing."""
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.stages.assembly import assemble_book, fold_wrappers, sleeve_books
from pil_research.types import InputError

seeds = st.integers(0, 2**32 - 1)


def _case(seed, c=None, own=False):
    rng = np.random.default_rng(seed)
    k, m = 5, 8
    unit = rng.normal(size=(c, k, m) if own else (k, m))
    unit /= np.abs(unit).sum(-1, keepdims=True)
    weights = rng.dirichlet(np.ones(k), size=() if c is None else c)
    primary = np.arange(m)
    primary[[5, 6, 7]] = [0, 0, 2]
    multiple = np.where(primary == np.arange(m), 1.0, rng.choice([-3.0, -1.0, 0.5, 2.0], m))
    return rng, weights, unit, rng.uniform(0.5, 3.0, k if c is None else (c, k)), primary, multiple


@settings(max_examples=60, deadline=None)
@given(seeds, st.booleans(), st.booleans(), st.booleans())
def test_parts_sum_to_the_book(seed, batch, own, wrap):
    _, a, unit, scale, primary, multiple = _case(seed, 3 if batch else None, own and batch)
    table = (primary, multiple) if wrap else (None, None)
    out = assemble_book(a, unit, scale, *table)
    parts = sleeve_books(a, unit, scale, *table)
    np.testing.assert_allclose(parts.sum(-2), out.book, atol=1e-15 * 10)
    np.testing.assert_allclose(out.gross_after, np.abs(out.book).sum(-1), atol=1e-15)
    np.testing.assert_allclose(out.gross_before - out.gross_after, out.crossing_saved, atol=1e-14)
    assert (out.crossing_saved >= 0).all()
    if not wrap:
        np.testing.assert_allclose(out.gross_before, (a * scale).sum(-1), atol=1e-14)
        np.testing.assert_allclose(out.book, np.einsum("...k,...k,...km->...m", a, scale, unit), atol=1e-15)


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_shared_sleeves_equal_own_sleeves_and_single_rows(seed):
    _, a, unit, scale, primary, multiple = _case(seed, 3)
    shared = assemble_book(a, unit, scale, primary, multiple)
    own = assemble_book(a, np.broadcast_to(unit, (3, *unit.shape)), scale, primary, multiple)
    np.testing.assert_allclose(shared.book, own.book, atol=1e-15)
    one = assemble_book(a[1], unit, scale[1], primary, multiple)
    np.testing.assert_allclose(one.book, shared.book[1], atol=1e-15)
    fixed = assemble_book(a, unit, scale[0], primary, multiple)
    np.testing.assert_allclose(fixed.book[0], shared.book[0], atol=1e-15)


def test_a_zero_sleeve_changes_no_bit():
    rng, a, unit, scale, _, _ = _case(4)
    a = np.append(a, 0.0)
    books = [assemble_book(a, np.vstack([unit, w]), np.append(scale, s)).book
             for w, s in ((np.zeros(8), 0.0), (rng.normal(size=8), 7.0))]
    np.testing.assert_array_equal(*books)


def test_mirror_and_linearity():
    _, a, unit, scale, primary, multiple = _case(9)
    book = assemble_book(a, unit, scale, primary, multiple).book
    np.testing.assert_array_equal(assemble_book(a, -unit, scale, primary, multiple).book, -book)
    np.testing.assert_allclose(assemble_book(a * 0.5, unit, scale, primary, multiple).book, book * 0.5, atol=1e-16)


def test_full_crossing():
    unit = np.array([[1.0, 0.0], [-1.0, 0.0]])
    out = assemble_book(np.full(2, 0.5), unit, np.ones(2))
    np.testing.assert_array_equal(out.book, 0.0)
    assert (float(out.gross_before), float(out.crossing_saved)) == (1.0, 1.0)


def test_folding_keeps_the_economic_exposure():
    _, _, _, _, primary, multiple = _case(2)
    x = np.arange(1.0, 9.0)
    folded = fold_wrappers(x, primary, multiple)
    np.testing.assert_array_equal(folded[[5, 6, 7]], 0.0)
    np.testing.assert_allclose(folded.sum(), (x * multiple).sum())
    np.testing.assert_allclose(folded[0], 1.0 + 6.0 * multiple[5] + 7.0 * multiple[6])
    np.testing.assert_array_equal(fold_wrappers(folded, primary, multiple), folded)
    np.testing.assert_array_equal(x, np.arange(1.0, 9.0))
    many = fold_wrappers(np.stack([x, 2 * x]), primary, multiple)
    np.testing.assert_allclose(many, np.stack([folded, 2 * folded]))


def test_no_wrappers_returns_the_same_array():
    x = np.ones(3)
    assert fold_wrappers(x, np.arange(3), np.ones(3)) is x


def test_splitting_a_symbol_into_wrappers_nets_back():
    table = (np.array([0, 0, 2]), np.ones(3))
    whole = assemble_book(np.array([0.6, 0.4]), np.array([[1.0, 0.0, 0.0], [0.5, 0.0, -0.5]]), np.ones(2), *table)
    split = assemble_book(np.array([0.6, 0.4]), np.array([[0.25, 0.75, 0.0], [0.0, 0.5, -0.5]]), np.ones(2), *table)
    np.testing.assert_allclose(split.book, whole.book, atol=1e-16)


def test_a_chain_of_wrappers_is_refused():
    with pytest.raises(InputError, match="wrapper of a wrapper") as caught:
        fold_wrappers(np.ones(3), np.array([0, 0, 1]), np.ones(3))
    assert caught.value.code == "WRAPPER_CHAIN"
