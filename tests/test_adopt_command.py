"""`pil adopt`: what an operator does to a store from a terminal, beside the daemon that the tests play."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from desk import DAILY, Desk, adds, codes
from fake_runs import passing_runs
from test_adopt import ROW, desk_with_a_past, restart

from pil_research import cli
from pil_research.integrator import PortfolioIntegrator
from pil_research.live import replay
from pil_research.research import approval as written
from pil_research.research.verdict import judge
from pil_research.types import StateError


@pytest.fixture(scope="module")
def approval(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, now = tmp_path_factory.mktemp("approval"), datetime.now(UTC)
    written.write_approval(judge(passing_runs(folder / "runs"), now=now), folder / "approval.json", now=now)
    return folder / "approval.json"


def pil(*words: object) -> int:
    return cli.main(["adopt", *map(str, words)])


BY = ("--who", "ada", "--why", "approval of May")


def test_a_mismatch_is_adopted_looked_at_and_acknowledged(
        tmp_path: Path, approval: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The runbook's way: CONFIG_MISMATCH, adopt, one decision, acknowledge, and the book may grow again."""
    desk = desk_with_a_past(tmp_path)
    config = PortfolioIntegrator.from_approval(approval, now=datetime.now(UTC)).config
    desk.store.close()
    with pytest.raises(StateError) as caught:
        restart(desk, config)
    assert caught.value.code == "CONFIG_MISMATCH"
    desk.store.close()
    assert pil(desk.path, "--approval", approval, *BY) == 0
    told = capsys.readouterr().out
    assert f"row 4: {DAILY.fingerprint()} -> {config.fingerprint()}" in told and "schedule.slots" in told
    assert pil(desk.path, "--acknowledge", *BY) == 2 and "ADOPTION_UNSEEN" in capsys.readouterr().err
    d = restart(desk, config).on_slot(desk.snapshot(ROW + 3))
    assert d.status == "reduce" and "ADOPTED" in codes(d) and adds(d) <= 1e-12
    desk.fill(d)
    assert pil(desk.path) == 0  # looking needs no lock and no name
    assert "stands: adopted, not confirmed" in capsys.readouterr().out
    assert pil(desk.path, "--acknowledge", *BY) == 2 and "LOCKED" in capsys.readouterr().err
    desk.store.close()
    assert pil(desk.path, "--acknowledge", *BY) == 0
    assert f"row 6: ended adopting {config.fingerprint()}" in capsys.readouterr().out
    d = restart(desk, config).on_slot(desk.snapshot(ROW + 4))
    assert "ADOPTED" not in codes(d) and d.status == "ok" and replay(desk.store).ok
    desk.store.close()


def test_a_halt_and_a_break_are_acknowledged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path / "store" / "book.db")
    desk.positions["S01"] = 1000.0
    assert desk.session.on_slot(desk.snapshot(ROW)).status == "halt"
    desk.positions["S02"] = 5.0
    d = desk.session.on_slot(desk.snapshot(ROW + 1))
    assert {"HALTED", "POSITION_BREAK"} <= set(codes(d))
    desk.fill(d)
    desk.store.close()
    assert pil(desk.path) == 0
    assert {"stands: halted", "stands: position breaks: S02"} <= set(capsys.readouterr().out.splitlines())
    assert pil(desk.path, "--acknowledge", *BY) == 0
    told = capsys.readouterr().out
    assert "ended halted, breaks ['S02']" in told and "stands" not in told
    d = desk.start().on_slot(desk.snapshot(ROW + 2))
    assert d.status == "ok" and not {"HALTED", "POSITION_BREAK"} & set(codes(d)) and replay(desk.store).ok
    row = next(r for r in desk.store.rows() if r.kind == "operator")
    assert (row.payload["who"], row.payload["why"]) == ("ada", "approval of May")
    desk.store.close()


@pytest.mark.parametrize(("words", "code"), [
    (("--approval", "APPROVAL"), "NO_OPERATOR"), (("--acknowledge", "--who", "ada"), "NO_OPERATOR"),
    (("--approval", "nowhere.json", *BY), "APPROVAL_MISSING"), (("--approval", "TORN", *BY), "APPROVAL_MALFORMED")])
def test_refusals_write_nothing(tmp_path: Path, approval: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...],
                                code: str) -> None:
    desk = desk_with_a_past(tmp_path)
    head = desk.store.head
    desk.store.close()
    (tmp_path / "TORN").write_text("{")
    given = [{"APPROVAL": str(approval), "TORN": str(tmp_path / "TORN")}.get(w, w) for w in words]
    assert pil(desk.path, *given) == 2 and code in capsys.readouterr().err
    assert desk.start().store.head == head
    desk.store.close()


def test_a_wrong_path_makes_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("--acknowledge", *BY)):
        assert pil(tmp_path / "none" / "book.db", *words) == 2 and "MISSING" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_an_empty_store_has_nothing_to_acknowledge(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    desk = Desk(tmp_path / "store" / "book.db")
    desk.store.close()
    assert pil(desk.path, "--acknowledge", *BY) == 2 and "NOTHING_TO_ACKNOWLEDGE" in capsys.readouterr().err
    assert pil(desk.path) == 0 and "no decision yet" in capsys.readouterr().out
