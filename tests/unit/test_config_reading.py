"""A configuration file that says something twice, or cannot be read, is refused with the line."""

import pytest

from excise.config.reading import check_file
from excise.errors import ExciseError
from tests.conftest import REPOSITORY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: 1\nb: 2\na: 3\n", "a is given in line 1 and again in line 3; leave one"),
        (b"v:\n  x: {method: lrp}\n  y: 1\n  x: {method: aura}\n", "v.x is given in line 2 and again in line 4"),
        (b"v: {x: 1,\n  x: 2}\n", "v.x is given in line 1 and again in line 2"),
        (b"v:\n- {x: 1}\n- x: 1\n  x: 2\n", "v.1.x is given in line 3 and again in line 4"),
        (b'{\n\t"a": 1,\n\t"a": 2\n}\n', "a is given in line 2 and again in line 3"),
        (b"a: 1\nb: caf\xe9\n", "line 2: byte 0xe9 is not UTF-8"),
        (b"a: [1\n", "not YAML"),
    ],
)
def test_mistakes_are_named_with_their_lines(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)
    with pytest.raises(ExciseError) as error:
        check_file(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "text", [b"", b"a: &x {b: 1}\nc: {<<: *x, d: 2}\n", b"\xef\xbb\xbfa: 1\n", b"a: {b: 1}\nc: {b: 1}\n"]
)
def test_what_is_said_once_is_accepted(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_bytes(text)
    check_file(path)


@pytest.mark.parametrize(
    "path",
    [REPOSITORY / "config.yaml", *sorted((REPOSITORY / "experiments").glob("*.yaml"))],
    ids=lambda path: path.stem,
)
def test_the_experiments_say_nothing_twice(path):
    check_file(path)
