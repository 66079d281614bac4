"""Configuration files: strict types, named keys, no silent surprises."""

from __future__ import annotations

from datetime import date

import pytest
from pydantic import ValidationError

from aqnet.config import Config, load_yaml, read_yaml
from aqnet.errors import ManifestError, ParameterError


class Span(Config):
    start: date
    end: date


class Example(Config):
    name: str
    count: int = 3
    rate: float = 1.0
    hours: tuple[int, ...] = ()
    span: Span | None = None


def load(tmp_path, text, error=ManifestError):
    path = tmp_path / "example.yaml"
    path.write_text(text)
    return load_yaml(path, Example, error)


def test_values_arrive_with_their_types(tmp_path):
    text = "name: a\nrate: 2\nhours: [12, 24]\nspan: {start: 2013-03-01, end: 2015-02-28}"
    example = load(tmp_path, text)
    assert example == Example(
        name="a", rate=2.0, hours=(12, 24), span=Span(start=date(2013, 3, 1), end=date(2015, 2, 28))
    )
    assert isinstance(example.rate, float)


def test_instances_do_not_change_and_take_no_unknown_key():
    with pytest.raises(ValidationError, match="frozen"):
        Example(name="a").count = 4
    with pytest.raises(ValidationError, match="Extra inputs"):
        Example(name="a", colour="red")
    with pytest.raises(ValidationError, match="finite"):
        Example(name="a", rate=float("nan"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: a\ncuont: 4", ["cuont: no such key", "known keys: name, count"]),
        ("count: 4", ["name: this key", "name: nothing"]),
        ("name: a\ncount: '4'", ["count: a valid integer", "count: '4' (str)"]),
        ("name: a\ncount: true", ["count: a valid integer", "count: 'True' (bool)"]),
        ("name: 12", ["name: a valid string", "name: '12' (int)"]),
        ("name: a\nrate: 1e-4", ["rate: a valid number", "rate: '1e-4' (str)"]),
        ("name: a\nspan: {start: 2013-03-01}", ["span.end: this key"]),
        ("name: a\nhours: [12, x]", ["hours.1: a valid integer"]),
        ("name: a\nrate: .nan", ["plain finite values"]),
    ],
)
def test_a_wrong_key_is_named_with_what_was_expected_and_found(tmp_path, text, parts):
    with pytest.raises(ManifestError) as caught:
        load(tmp_path, text)
    for part in ["example.yaml", *parts]:
        assert part in str(caught.value)


def test_all_wrong_keys_are_named_at_once(tmp_path):
    with pytest.raises(ManifestError, match="count, colour"):
        load(tmp_path, "name: a\ncount: x\ncolour: red")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("name: a\nname: b", "given twice: name (line 2)"),
        ("span: {start: 2013-03-01, start: 2013-03-02}", "given twice: span.start (line 1)"),
        ("- {a: 1, a: 2}", "given twice: 0.a (line 1)"),
        ("- a\n- b", "found:    a list"),
        ("name: [a", "expected: YAML in UTF-8"),
        ("!!python/object/apply:os.getcwd []", "could not determine a constructor"),
    ],
)
def test_unusable_yaml_is_refused(tmp_path, text, part):
    with pytest.raises(ManifestError) as caught:
        load(tmp_path, text)
    assert part in str(caught.value)


def test_missing_file_and_error_class(tmp_path):
    with pytest.raises(ParameterError, match="no file there"):
        read_yaml(tmp_path / "none.yaml", ParameterError)
    with pytest.raises(ParameterError, match="colour: no such key"):
        load(tmp_path, "name: a\ncolour: red", ParameterError)


def test_empty_file_is_an_empty_mapping(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing set\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}
