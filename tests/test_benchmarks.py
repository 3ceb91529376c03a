"""The benchmark's clockwork; the figures themselves belong to a machine and are not tested."""
from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("harness")


def test_contenders_take_turns(harness: ModuleType) -> None:
    calls: list[str] = []
    took = harness.alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, {"a": 2})
    assert calls == ["a", "b", "a", "a", "b", "b", "a", "a"] and set(took) == {"a", "b"} and min(took.values()) >= 0.0


def test_ratio_goal_and_json(harness: ModuleType, tmp_path: Path) -> None:
    rows = [harness.Row(job="j", case="c", ours_s=0.002, peer="p", peer_s=0.5, difference=1e-16, compares="weights",
                        goal=">= 300x", met=False), harness.Row(job="j", case="d", ours_s=3e-5, note="said")]
    assert rows[0].ratio == 250.0 and rows[1].ratio is None
    text = harness.text_table(rows)
    assert "250x" in text and "(missed)" in text and "30 µs" in text and "j, d: said" in text and "difference is weights" in text
    harness.write_json(rows, tmp_path / "b" / "latest.json", quick=True)
    got = json.loads((tmp_path / "b" / "latest.json").read_text())
    assert got["schema"] == "pil.bench/1" and got["rows"][0]["ratio"] == 250.0 and "numpy" in got["versions"]


def test_unit_of_a_span(harness: ModuleType) -> None:
    assert [harness.span(x) for x in (None, 5e-7, 0.0123, 9.86, 5000.0)] == ["", "0.5 µs", "12.3 ms", "9.86 s", "83.3 min"]


def test_live_feed_gives_one_decision_a_day(harness: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    live = importlib.import_module("live")
    feed = live.Feed(3, 8, 4)
    ours = live.warm(feed, 3, skip=1)
    assert 0.0 < ours.median <= ours.slow and ours.opening > 0.0 and ours.reading > 0.0
    assert len(ours.exposures) == 8 and float(ours.exposures.abs().sum()) > 0.0
