"""Any input at all: a valid decision or a typed error, within a second, leaving nothing behind."""

# ruff: noqa: E501 (a table of seeds)
from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pil_research.research.fuzz import LIMIT, default_pool, fuzz, fuzz_case, run_case
from pil_research.research.fuzz_faults import FAULTS
from pil_research.research.fuzz_oracle import broken_rules
from pil_research.types import Kills

CASES = int(os.environ.get("PIL_FUZZ_CASES", "100000"))

REGRESSIONS: dict[int, str] = {  # seeds that failed once, and what was wrong
    34: "returns of 1e150 overflowed in a square", 5: "instruments without asset_class: KeyError", 89: "a column of instruments twice: ValueError",
    26: "stored flags and counters were cast, with a warning", 77: "instruments of another type: AttributeError",
    64: "a whole number beyond the floats: OverflowError", 50: "a sleeve's history of another type: AttributeError",
    226: "positions labelled by numbers: TypeError in sorting", 304: "a list of sleeves whose truth raises", 318: "an operator of another type: AttributeError",
    198: "symbols of a stored state were no list: TypeError", 334: "a stored state of another shape: ValueError", 475: "stored kills of numbers: TypeError",
    480: "a price of 5e-324 gave an infinite quantity", 516: "a stored array without a length: IndexError", 410: "given sleeve returns of 1e150",
    739: "who of a kill whose truth raises", 795: "no pairs for a rank correlation: ValueError in reshape", 1113: "10**400 in a configuration: OverflowError",
    1420: "kelly = 5e-324 overflowed in a division", 2341: "a volatility target of 5e-324", 2218: "a sizing fraction of 5e-324",
    1412: "stored kills of flags: TypeError", 230: "a Python power overflowed",
    104273: "a stored equity of infinity warned before it was refused", 106956: "a list of sleeves with a number in it, in the rules",
    152886: "sleeves of one date, in the rules", 107467: "a held sleeve and a name that may not trade: gross rose",
    112338: "a symbol that never moves, clustered by correlation: 0 / 0", 119646: "a panel without columns: IndexError",
    121717: "gains of plus and minus infinity, summed", 180870: "a stored session of another shape: no JSON afterwards",
    400158: "redundancy of a sleeve that never moves: 0 / 0", 403043: "a held future at 5e-324: an infinite exposure",
    409182: "a killed book asked for under a slot that is no text", 426236: "a stored equity of 0: 1 / 0"}


@pytest.mark.parametrize("seed", REGRESSIONS, ids=lambda s: f"{s}")
def test_a_seed_that_failed_once(seed: int) -> None:
    got = run_case(fuzz_case(seed))
    assert got.kind != "failed", f"{REGRESSIONS[seed]}: {got.detail}"


def test_two_thousand_inputs() -> None:
    got = fuzz(range(10_000, 12_000))
    assert not got.failures, got.failures[:3]
    assert got.cases == 2000 and got.decided > 600 and got.refused > 600 and len(got.codes) >= 20 and got.slowest < LIMIT


@pytest.mark.parametrize(("times", "kind"), [((1.18, 0.03), "decided"), ((1.18, 1.3, 1.1, 0.1), "failed")])
def test_a_pause_is_not_a_slow_input(monkeypatch: pytest.MonkeyPatch, times: tuple[float, ...], kind: str) -> None:
    """A case beyond the limit is run again; one that is slow each time fails."""
    default_pool()
    clock = iter([v for t in times for v in (0.0, t)])
    monkeypatch.setattr("pil_research.research.fuzz.time.process_time", lambda: next(clock))
    got = run_case(fuzz_case(2))
    assert got.kind == kind and got.seconds == min(times[:3])


@pytest.mark.slow
def test_a_hundred_thousand_inputs() -> None:
    got = fuzz(range(100_000, 100_000 + CASES))
    assert not got.failures, got.failures[:5]
    assert got.cases == CASES and got.slowest < LIMIT


def test_a_seed_is_a_case() -> None:
    for seed in range(40):
        a, b = fuzz_case(seed), fuzz_case(seed)
        assert (a.faults, a.base, len(a.ask)) == (b.faults, b.base, len(b.ask)) and repr(a.changes) == repr(b.changes)
        assert run_case(a)[:2] == run_case(b)[:2]


def test_every_fault_is_drawn() -> None:
    drawn = {f for seed in range(3000) for f in fuzz_case(seed).faults}
    assert drawn == set(FAULTS) and len(FAULTS) >= 150


# ---------------------------------------------------------------- the oracle is not blind


def spoilt(**changes: Any) -> list[str]:
    w = default_pool()[0]
    d = type(w.integrator)(w.world.config, w.world.state).build_target_book(w.asked)
    base = {k: getattr(d, k) for k in ("book_weights", "exposures", "notionals", "trades", "sleeve_weights", "orders", "stages", "alarms",
                                       "binding", "haircuts", "numbers")}
    made = {k: (v(base[k]) if callable(v) else v) for k, v in changes.items() if k in base}
    asked = replace(w.asked, **{k: v for k, v in changes.items() if k not in base})
    return broken_rules(replace(d, **{**base, **made}), asked, w.world.config)


def one(x: pd.Series, value: float) -> pd.Series:
    out = x.copy()
    out.iloc[0] = value
    return out


@pytest.mark.parametrize(("changes", "words"), [
    ({"exposures": lambda x: one(x, np.nan)}, "not finite"), ({"exposures": lambda x: one(x, 0.4)}, "name"),
    ({"exposures": lambda x: x * 9.0}, "gross"), ({"book_weights": lambda x: x.abs() + 0.14}, "net"),
    ({"sleeve_weights": lambda x: one(x, -0.1)}, "sleeve weights"), ({"sleeve_weights": lambda x: x * 2.0}, "sleeve weights"),
    ({"haircuts": lambda x: {**x, "throttle": 1.5}}, "haircuts"), ({"haircuts": lambda x: {**x, "product": 0.9}}, "haircuts"),
    ({"binding": ("mood",)}, "closed lists"), ({"numbers": lambda x: {**x, "leverage": 7.0}}, "leverage"),
    ({"numbers": lambda x: {**x, "cash": 0.5}}, "cash"), ({"exposures": lambda x: x[::-1]}, "sorted"),
    ({"kills": Kills(book=True)}, "killed"), ({"kills": "?"}, "killed"), ({"restricted": {"S01": "reduce_only"}, "trades": lambda x: x + 0.03}, "shrink"),
    ({"slot": "12:00"}, "slot"), ({"orders": lambda x: tuple(replace(o, quantity=np.inf) for o in x)}, "quantity"),
    ({"orders": lambda x: tuple(replace(o, side="hold") for o in x)}, "side")])
def test_the_oracle_sees(changes: dict[str, Any], words: str) -> None:
    if "orders" in changes and not default_pool()[0].answer["orders"]:
        pytest.skip("the witness of this pool trades nothing")
    assert any(words in rule for rule in spoilt(**changes)), spoilt(**changes)


def test_a_sound_decision_breaks_nothing() -> None:
    assert spoilt() == []
