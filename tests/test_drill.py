"""`pil drill`: the fault loops on a copy of a store; the original is never touched; failures are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pil_research.cli import main
from pil_research.live.store import StateStore
from pil_research.research import drill as module
from pil_research.research.damage import copy_store, damage_copies, file_marks, meaning
from pil_research.research.drill import KINDS, clock_jumps, drill, new_store
from pil_research.types import InputError, StateError

FEW = {"corrupt": 40, "kill9": 3, "writers": 2, "clock": 4, "disk": 4, "fuzz": 20}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return new_store(tmp_path_factory.mktemp("own") / "s" / "book.db", sessions=4)


def test_a_drill_on_ones_own_store(store: Path) -> None:
    before = file_marks(store)
    listed = sorted(p.name for p in store.parent.iterdir())
    got = drill(store, FEW, seed=3)
    assert got.ok and got.untouched is True and [x.kind for x in got.lines] == list(KINDS) and got.rows == 4
    assert file_marks(store) == before and sorted(p.name for p in store.parent.iterdir()) == listed
    assert [x.cases for x in got.lines] == list(FEW.values()) and json.dumps(got.to_dict(), allow_nan=False)
    facts = {x.kind: x.facts for x in got.lines}
    assert (
        facts["corrupt"]["refused"] + facts["corrupt"]["believed, same content"] == 40 and facts["fuzz"]["failed"] == 0
    )


def test_the_command_prints_counts_or_json(capsys: pytest.CaptureFixture[str], store: Path) -> None:
    assert main(["drill", str(store), "--only", "corrupt", "--corrupt", "20"]) == 0
    out = capsys.readouterr().out
    assert "pass  corrupt" in out and "20 faults, 0 kinds failed; 4 rows, original untouched" in out
    assert main(["drill", "--only", "writers", "--writers", "2", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] and told["store"] == "new" and [x["kind"] for x in told["lines"]] == ["writers"]


@pytest.mark.parametrize("arguments", [["nowhere.db"], ["--corrupt", "-1"], ["--writers", "17"]])
def test_what_cannot_start_is_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["drill", *arguments]) == 2 and capsys.readouterr().err


def test_a_failure_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], store: Path
) -> None:
    """A store that believes damage, a store that loses rows, and an exception nobody expected."""
    for found in (
        (False, {"lost": 1}),
        StateError("rows are gone; report it", code="DRILL", field="store"),
        ZeroDivisionError("x"),
    ):

        def kind(*_: Any, found: Any = found) -> Any:
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(module, "_RUN", {**module._RUN, "writers": kind})
        assert main(["drill", str(store), "--only", "writers"]) == 1
        assert "FAIL  writers" in capsys.readouterr().out


def test_a_store_that_changes_meanwhile_is_told(monkeypatch: pytest.MonkeyPatch, store: Path, tmp_path: Path) -> None:
    own = copy_store(store, tmp_path / "s" / "book.db")

    def touch(*_: Any) -> Any:
        own.write_bytes(own.read_bytes() + b"\0")
        return True, {}

    monkeypatch.setattr(module, "_RUN", {**module._RUN, "writers": touch})
    got = drill(own, {**dict.fromkeys(KINDS, 0), "writers": 2})
    assert got.untouched is False and not got.ok


def test_a_damaged_or_empty_store(tmp_path: Path, store: Path) -> None:
    empty = tmp_path / "e" / "book.db"
    StateStore(empty).close()
    got = drill(empty, FEW)
    assert got.ok and {x.kind for x in got.lines if "skipped" in x.facts} == {"clock", "fuzz"}
    empty.write_bytes(empty.read_bytes()[:3000])
    with pytest.raises(StateError):
        drill(empty, FEW)
    assert empty.stat().st_size == 3000
    with pytest.raises(InputError):
        drill(tmp_path / "none.db")
    with pytest.raises(InputError):
        drill(store, {"fire": 1})


def test_clock_and_damage_counts_add_up(store: Path, tmp_path: Path) -> None:
    own = copy_store(store, tmp_path / "s" / "book.db")
    got = clock_jumps(own, 13, seed=1)
    assert got.held + got.refused + got.in_time == 13 and not got.wrong and got.held >= 5 and got.refused >= 3
    assert meaning(own)[0] == meaning(copy_store(store, tmp_path / "t" / "book.db"))[0]
    head = damage_copies(own, 30, seed=2, part=".head")
    assert head.other == 0 and head.same > 0


@pytest.mark.slow
def test_the_default_drill_on_a_new_store() -> None:
    got = drill(seed=11)
    assert got.ok, got
