"""Plain values into typed options: what is taken, what is refused and in which words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel_trainer.config import RunConfig, SplitOptions
from accel_trainer.errors import ConfigError
from accel_trainer.options import build_options, convert, expected, leaves


@dataclass
class Inner:
    rate: float = 0.5
    sizes: tuple[int, int] = (1, 2)


@dataclass
class Outer:
    steps: int = 1
    kind: Literal["one", "two"] = "one"
    label: str | None = None
    names: list[str] = field(default_factory=list)
    inner: Inner = field(default_factory=Inner)
    rest: dict[str, Any] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("1e-3", float, 1e-3),
        ("1E5", float, 1e5),
        (".5", float, 0.5),
        ("5.", float, 5.0),
        ("-2", float, -2.0),
        ("-3", int, -3),
        ("true", bool, True),
        ("no", bool, False),
        ("null", int | None, None),
        ("null", str | None, None),
        ("#1", str | None, "#1"),
        ("null", str, "null"),
        ("123", str, "123"),
        ("1e5", str | None, "1e5"),
        ("[0.9, 0.99]", tuple[float, float], (0.9, 0.99)),
        ("[a, strain_*]", list[str], ["a", "strain_*"]),
        ("no", Literal["no", "fp16"], "no"),
    ],
)
def test_the_text_of_a_flag_is_read_as_yaml_would(text, annotation, value):
    converted = convert("key", text, annotation, from_text=True)
    assert converted == value
    assert type(converted) is type(value)


@given(st.text())
def test_a_text_stays_what_it_is(text):
    for annotation in (str, str | None):
        assert convert("key", text, annotation) == text
        if text != "null":
            assert convert("key", text, annotation, from_text=True) == text
    assert convert("key", [text], list[str]) == [text]
    assert convert("key", {text: text, "deeper": {"list": [text]}}, dict[str, Any]) == {
        text: text,
        "deeper": {"list": [text]},
    }


@given(st.integers())
def test_a_whole_number_is_a_number(number):
    assert convert("key", number, int) == number
    assert convert("key", number % 10**15, float) == float(number % 10**15)


@pytest.mark.parametrize(
    ("value", "annotation", "parts"),
    [
        ("fast", float, ["'fast'", "a number"]),
        (2.5, int, ["2.5", "a whole number"]),
        (True, int, ["True", "a whole number"]),
        (True, float, ["True", "a number"]),
        (1, bool, ["1", "true or false"]),
        (5, str, ["5", "a text", "put it in quotes"]),
        (5, str | None, ["5", "a text or null", "put it in quotes"]),
        (None, int, ["null is not allowed", "a whole number"]),
        (None, list[str], ["null is not allowed", "a list in brackets, of texts"]),
        ("a", list[str], ["'a'", "write [a]"]),
        ([-99], list[str], ["[-99]", "put each of them in quotes"]),
        ([1.0], tuple[float, float], ["[1.0]", "a list in brackets, of numbers"]),
        ("x", dict[str, Any], ["'x'", "a mapping of names to values"]),
        ("tow", Literal["one", "two"], ["'tow'", "one, two", "did you mean 'two'?"]),
        (["one"], Literal["one", "two"], ["['one']", "one, two"]),
    ],
)
def test_a_wrong_value_is_refused_with_what_would_be_right(value, annotation, parts):
    with pytest.raises(ConfigError) as caught:
        convert("section.option", value, annotation)
    assert str(caught.value).startswith("section.option: ")
    assert caught.value.key == "section.option"
    for part in parts:
        assert part in caught.value.problem


def test_a_mapping_becomes_a_record_of_records():
    made = build_options(
        Outer, {"steps": 3, "inner": {"rate": 1, "sizes": [4, 5]}, "names": ["a"], "rest": {"x": 1}}, ""
    )
    assert made == Outer(steps=3, inner=Inner(1.0, (4, 5)), names=["a"], rest={"x": 1})
    assert build_options(Outer, {}, "") == Outer()


@pytest.mark.parametrize(
    ("values", "key", "part"),
    [
        ({"stepz": 3}, "steps", "did you mean 'steps'?"),
        ({"inner": {"rat": 3}}, "inner.rat", "did you mean 'rate'? (known: rate, sizes)"),
        ({"inner": 3}, "inner", "3 is not a mapping of names to values"),
        ({"inner": None}, "inner", "None is not a mapping of names to values"),
        ({"zzz": 1}, "zzz", "known: steps, kind, label, names, inner, rest"),
        ({1: 2}, "1", "unknown option"),
    ],
)
def test_unknown_options_name_what_is_known(values, key, part):
    with pytest.raises(ConfigError) as caught:
        build_options(Outer, values, "here")
    assert caught.value.key.startswith("here.")
    assert part in str(caught.value)
    assert key in str(caught.value)


def test_a_record_that_refuses_itself_keeps_its_own_words():
    with pytest.raises(ConfigError, match="leave no rows for validation"):
        build_options(SplitOptions, {"train": 0.9, "test": 0.5}, "data.split")


def test_leaves_are_all_options_with_dotted_names():
    assert dict(leaves(Outer)) == {
        "steps": int,
        "kind": Literal["one", "two"],
        "label": str | None,
        "names": list[str],
        "inner.rate": float,
        "inner.sizes": tuple[int, int],
        "rest": dict[str, Any],
    }
    names = [name for name, _ in leaves(RunConfig)]
    assert len(names) == len(set(names))
    assert {"run.name", "data.split.kind", "data.bhm.days", "optimizer.options"} <= set(names)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "a whole number or null"),
        (Literal["a", "b"], "a, b"),
        (list[float], "a list in brackets, of numbers"),
        (dict[str, Any], "a mapping of names to values"),
        (Inner, "a mapping of names to values"),
    ],
)
def test_types_are_described_in_words(annotation, words):
    assert expected(annotation) == words


def test_every_option_of_a_run_can_be_described():
    for name, annotation in leaves(RunConfig):
        assert "<" not in expected(annotation), name
        assert "typing" not in expected(annotation), name
