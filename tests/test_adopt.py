"""A store that goes on under another configuration: by a person, in the journal, without new risk until confirmed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from desk import CALENDARS, DAILY, Desk, adds, codes

from pil_research.integrator import PortfolioIntegrator
from pil_research.live import LiveSession, SlotCalendar, SlotDecision, StateStore, adopt, replay
from pil_research.live.adopt import carry_over, changed_keys
from pil_research.types import BookState, InputError, Kills, Operator, PilError, StateError

ROW = 220
BOLDER = DAILY.replace(**{"sizing.kelly": 0.9, "caps.name": 0.25})
CALMER = DAILY.replace(**{"sizing.kelly": 0.2})


def desk_with_a_past(path: Path) -> Desk:
    desk = Desk(path / "store" / "book.db")
    desk.run(ROW, ROW + 2)
    return desk


def restart(desk: Desk, config: object) -> LiveSession:
    desk.config = config  # type: ignore[assignment]
    CALENDARS.setdefault(desk.config.schedule, SlotCalendar(config=desk.config.schedule))
    return desk.restart()


def test_another_configuration_is_refused_until_it_is_adopted(tmp_path: Path) -> None:
    desk = desk_with_a_past(tmp_path)
    before = desk.session.state
    with pytest.raises(StateError) as caught:
        LiveSession(desk.store, PortfolioIntegrator(BOLDER), desk.calendar)
    assert caught.value.code == "CONFIG_MISMATCH"
    row = adopt(desk.store, PortfolioIntegrator(BOLDER), who="ada", why="approval of May")
    assert row.kind == "adopt" and row.payload["who"] == "ada" and row.payload["why"] == "approval of May"
    assert (row.payload["old"], row.payload["new"]) == (DAILY.fingerprint(), BOLDER.fingerprint())
    assert row.payload["changed"] == {"caps.name": [0.15, 0.25], "sizing.kelly": [0.5, 0.9]}
    with pytest.raises(StateError) as caught:
        restart(desk, DAILY)
    assert caught.value.code == "CONFIG_MISMATCH"
    desk.store.close()
    session = restart(desk, BOLDER)
    after = session.state
    assert after.config_fingerprint == BOLDER.fingerprint() and session.memory.adopting == BOLDER.fingerprint()
    kept = {k: v for k, v in before.values.items() if k != "clusters"}
    assert {k: v for k, v in after.values.items() if k != "clusters"} == kept and after.last_decision == before.last_decision


def test_nothing_grows_until_somebody_confirms_what_he_has_seen(tmp_path: Path) -> None:
    desk = desk_with_a_past(tmp_path)
    adopt(desk.store, PortfolioIntegrator(BOLDER), who="ada", why="approval of May")
    session = restart(desk, BOLDER)
    with pytest.raises(InputError) as caught:
        session.acknowledge(who="bob", why="looks good")
    assert caught.value.code == "ADOPTION_UNSEEN" and session.memory.adopting
    for row in range(ROW + 3, ROW + 6):
        d = session.on_slot(desk.snapshot(row))
        assert d.status == "reduce" and "ADOPTED" in codes(d) and adds(d) <= 1e-12
        assert d.config_fingerprint == BOLDER.fingerprint() and np.isfinite(d.book_weights).all()
        desk.fill(d)
        session = desk.restart()  # the wait survives a restart
    ended = session.acknowledge(who="bob", why="looks good").payload["ended"]
    assert ended["adopting"] == BOLDER.fingerprint() and not session.memory.adopting
    d = session.on_slot(desk.snapshot(ROW + 6))
    assert d.status == "ok" and "ADOPTED" not in codes(d) and adds(d) > 0.0
    done = replay(desk.store)
    assert done.ok and done.decisions == 7 and done.notes == 2


def test_a_calmer_configuration_cuts_at_once(tmp_path: Path) -> None:
    desk = desk_with_a_past(tmp_path)
    held = desk.session.on_slot(desk.snapshot(ROW + 3))
    desk.fill(held)
    adopt(desk.store, PortfolioIntegrator(CALMER), who="ada", why="less risk")
    d = restart(desk, CALMER).on_slot(desk.snapshot(ROW + 4))
    assert d.exposures.abs().sum() < 0.6 * held.exposures.abs().sum() and adds(d) <= 1e-12


def test_drawdown_and_kills_are_facts_of_the_account(tmp_path: Path) -> None:
    """Adopting is no way to forget a loss or a kill."""
    desk = desk_with_a_past(tmp_path)
    desk.equity *= 0.9
    lost = desk.session.on_slot(desk.snapshot(ROW + 3))
    desk.fill(lost)
    adopt(desk.store, PortfolioIntegrator(BOLDER), who="ada", why="approval of May")
    d = restart(desk, BOLDER).on_slot(desk.snapshot(ROW + 4))
    assert d.numbers["drawdown"] == pytest.approx(lost.numbers["drawdown"], abs=1e-9) and d.numbers["drawdown"] > 0.05


def test_a_slot_is_not_decided_twice(tmp_path: Path) -> None:
    """The id of a slot changes with the configuration; the slot itself does not."""
    desk = desk_with_a_past(tmp_path)
    adopt(desk.store, PortfolioIntegrator(CALMER), who="ada", why="less risk")
    session = restart(desk, CALMER)
    with pytest.raises(InputError) as caught:
        session.on_slot(desk.snapshot(ROW + 2))
    assert caught.value.code == "SLOT_DONE"


def test_back_again_is_another_adoption(tmp_path: Path) -> None:
    desk = desk_with_a_past(tmp_path)
    for config in (CALMER, DAILY):
        adopt(desk.store, PortfolioIntegrator(config), who="ada", why="to and fro")
        session = restart(desk, config)
    assert session.on_slot(desk.snapshot(ROW + 3)).status == "reduce"
    assert [r.kind for r in desk.store.rows()].count("adopt") == 2 and replay(desk.store).ok


def test_an_adopted_book_that_was_changed_is_a_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A carried state that forgot what is held, written with every hash in order, is named by the replay."""
    def forgetful(state: BookState, fingerprint: str) -> BookState:
        kept = carry_over(state, fingerprint)
        assert any(kept.values["exposures"][0])
        return replace(kept, values={**kept.values, "exposures": ((0.0,) * len(kept.symbols),)})

    desk = desk_with_a_past(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(import_module("pil_research.live.adopt"), "carry_over", forgetful)
        row = adopt(desk.store, PortfolioIntegrator(CALMER), who="eve", why="less risk")
    session = restart(desk, CALMER)  # every checksum holds
    assert desk.store.verify()["rows"] == row.seq
    session.on_slot(desk.snapshot(ROW + 3))
    found = replay(desk.store)
    assert not found.ok and (found.differences[0].seq, found.differences[0].path) == (row.seq, "state")


BOOK, SYMBOL, SLEEVE = (Kills(who="ops", why="x", **k) for k in ({"book": True}, {"symbols": ("S03",)}, {"sleeves": ("carry",)}))


@pytest.mark.parametrize(("kills", "latched"), [(BOOK, True), (BOOK, False), (SYMBOL, True), (SLEEVE, True)])
def test_a_kill_outlives_an_adoption(tmp_path: Path, kills: Kills, latched: bool) -> None:
    """Latched by a decision, or (of the book) thrown after one and still waiting: only an operator's release ends it."""
    desk = desk_with_a_past(tmp_path)
    asked = desk.snapshot(ROW + 3 if latched else ROW + 2, kills=kills)
    d = desk.session.on_slot(asked)
    assert "KILLED" in codes(d)
    desk.fill(d)
    adopt(desk.store, PortfolioIntegrator(BOLDER), who="ada", why="approval of May")
    session = restart(desk, BOLDER)

    def acts(d: SlotDecision) -> bool:
        dead = d.exposures if kills.book else d.exposures[list(kills.symbols)] if kills.symbols else d.sleeve_weights[["carry"]]
        return "KILLED" in codes(d) and bool((dead == 0.0).all()) and (d.status == "flat") == kills.book

    d = session.on_slot(desk.snapshot(ROW + 4))
    assert acts(d) and "ADOPTED" in codes(d) and adds(d) <= 1e-12
    desk.fill(d)
    session.acknowledge(who="bob", why="looks good")
    d = session.on_slot(desk.snapshot(ROW + 5))
    assert acts(d) and "ADOPTED" not in codes(d)
    desk.fill(d)
    d = session.on_slot(desk.snapshot(ROW + 6, operator=Operator(who="ops", why="over", release_kills=True)))
    assert "KILLED" not in codes(d) and d.status == "ok" and replay(desk.store).ok


@pytest.mark.parametrize(("case", "code"), [("nobody", "NO_OPERATOR"), ("same", "SAME_CONFIG"), ("past", "STATE_MISMATCH"),
                                            ("empty", "NOTHING_TO_ADOPT")])
def test_refusals_write_nothing(tmp_path: Path, case: str, code: str) -> None:
    desk = desk_with_a_past(tmp_path)
    used = PortfolioIntegrator(CALMER)
    used.build_target_book(desk.snapshot(ROW))
    calls: dict[str, Callable[[], object]] = {
        "nobody": lambda: adopt(desk.store, PortfolioIntegrator(CALMER), who=" ", why="x"),
        "same": lambda: adopt(desk.store, PortfolioIntegrator(DAILY), who="ada", why="x"),
        "past": lambda: adopt(desk.store, used, who="ada", why="x"),
        "empty": lambda: adopt(StateStore(tmp_path / "other" / "book.db"), PortfolioIntegrator(CALMER), who="ada", why="x")}
    rows = desk.store.seq
    with pytest.raises(PilError) as caught:
        calls[case]()
    assert caught.value.code == code and desk.store.seq == rows


def test_changed_keys_names_sections() -> None:
    assert changed_keys({"a": {"b": 1, "c": 2}, "d": [1]}, {"a": {"b": 1, "c": 3}, "e": None}) == {
        "a.c": [2, 3], "d": [[1], None]}
