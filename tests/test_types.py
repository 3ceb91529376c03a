"""Errors, alarms, names and the small values that cross the boundary."""

from __future__ import annotations

import copy
import json
import math
import pickle
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pil_research.types import (
    BINDING,
    REGIME_LABELS,
    ROLES,
    Alarm,
    AlarmCode,
    BookState,
    ConfigError,
    InputError,
    InvariantError,
    Kills,
    PilError,
    RegimeRead,
    Sleeve,
    StateError,
    check_name,
    is_finite,
    plain,
)


@pytest.mark.parametrize("kind", [PilError, InputError, ConfigError, StateError, InvariantError])
def test_errors_carry_their_facts_through_copies(kind: type[PilError]) -> None:
    error = kind("gross must be <= 2, got 3; cut it", code="CAP", field="gross", subject="GLD", value=3.0, limit=2.0)
    for other in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(other) is kind and isinstance(other, PilError)
        assert (other.code, other.field, other.subject, other.value, other.limit) == ("CAP", "gross", "GLD", 3.0, 2.0)
        assert str(other).startswith("gross must be") and other.as_dict()["code"] == "CAP"
    assert json.dumps(error.as_dict())


def test_unusable_values_are_value_errors_and_broken_rules_are_not() -> None:
    for kind in (InputError, ConfigError, StateError):
        assert issubclass(kind, ValueError)
    assert issubclass(InvariantError, RuntimeError) and not issubclass(InvariantError, ValueError)


def test_binding_is_the_closed_list_of_the_spec() -> None:
    assert BINDING == (
        "vol_clip_hi",
        "name",
        "cluster",
        "net",
        "gross",
        "tier",
        "governor",
        "throttle",
        "capacity",
        "held",
        "band",
        "gate",
        "restriction",
        "min_ticket",
        "lot",
    )
    assert REGIME_LABELS == ("risk_on", "transition", "crisis") and ROLES == ("defensive", "cyclical", "neutral")


def test_alarm_codes_are_their_names() -> None:
    assert all(str(c) == c.name for c in AlarmCode) and len(AlarmCode) >= 35
    assert Alarm(code="KILL_SET", severity="info").code is AlarmCode.KILL_SET  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="NOPE"):
        Alarm(code="NOPE", severity="info")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="severity must be"):
        Alarm(code=AlarmCode.KILL_SET, severity="loud")


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_names_are_short_and_plain(text: str) -> None:
    legal = 1 <= len(text) <= 32 and all(c.isascii() and (c.isalnum() or c in "._=-") for c in text)
    if legal:
        assert check_name(text, "symbol") == text
        return
    with pytest.raises(InputError, match="symbol must be 1-32 characters") as caught:
        check_name(text, "symbol")
    assert caught.value.code == "BAD_NAME" and caught.value.field == "symbol"


@pytest.mark.parametrize("name", ["", "a" * 33, "a b", "../x", "<b>", "é", "a\n", None, 3, b"GLD"])
def test_bad_names(name: Any) -> None:
    with pytest.raises(InputError, match="must be 1-32 characters"):
        check_name(name, "sleeve id")
    with pytest.raises(InputError, match="sleeve id"):
        Sleeve(id=name, weights=None)


@pytest.mark.parametrize(
    ("facts", "code"),
    [({"role": "brave"}, "BAD_ROLE"), ({"capacity": -1.0}, "BAD_CAPACITY"), ({"capacity": math.nan}, "BAD_CAPACITY")],
)
def test_bad_sleeves(facts: dict[str, Any], code: str) -> None:
    with pytest.raises(InputError, match="of sleeve carry") as caught:
        Sleeve(id="carry", weights=None, **facts)
    assert caught.value.code == code and caught.value.subject == "carry"


@pytest.mark.parametrize(
    ("label", "confidence"),
    [("panic", 0.5), ("", 0.5), ("crisis", 1.01), ("crisis", -0.01), ("crisis", math.nan), ("crisis", True)],
)
def test_bad_regime_reads(label: str, confidence: float) -> None:
    with pytest.raises(InputError, match="regime") as caught:
        RegimeRead(label=label, confidence=confidence)
    assert caught.value.code == "BAD_REGIME"


def test_finite() -> None:
    for good in (0, 1.5, -1e300, np.float64(2.0), np.int64(3), np.float32(1.0)):
        assert is_finite(good)
    for bad in (None, math.nan, math.inf, -math.inf, True, False, "1", np.nan, 1j, pd.NaT, [1.0]):
        assert not is_finite(bad)


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Kills().book = True  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        BookState().seq = 3  # type: ignore[misc]


def test_states_are_values() -> None:
    a = BookState(
        seq=1,
        sleeve_ids=("x",),
        values={"applied": ((0.1, 0.2),), "kills": (True, ("s",), (), "", "")},
        last_decision={"alarms": [{"code": "KILL_SET"}]},
    )
    b = BookState.from_dict(json.loads(json.dumps(a.to_dict())))
    assert a == b and hash(a) == hash(b) and {a: 1}[b] == 1 and a != BookState(seq=2)
    for bad in ({}, [], {**a.to_dict(), "extra": 1}):
        with pytest.raises(StateError, match="exactly the fields") as caught:
            BookState.from_dict(bad)  # type: ignore[arg-type]
        assert caught.value.code == "BAD_STATE"


def test_plain_values() -> None:
    got = plain(
        {
            "a": np.float64(1.5),
            "b": (np.int64(2), math.nan, math.inf),
            3: np.array([True, False]),
            "s": pd.Timestamp("2024-01-02"),
        }
    )
    assert got == {"a": 1.5, "b": [2, None, None], "3": [True, False], "s": "2024-01-02 00:00:00"}
    assert json.loads(json.dumps(got, allow_nan=False)) == got
