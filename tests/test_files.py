"""Reading files: whatever is in place of a valid file is an OSError or a ValueError with a reason, at once."""

from __future__ import annotations

import io
import json
import os

import pytest

from minigpt.files import MOST_DEPTH, parse_json, parse_toml, read_bytes, read_json, read_lines, read_stream, utf8, why

LONG = "9" * 5_000

NO_JSON = {
    "empty": (b"", "empty"),
    "words": (b"hello", "not JSON"),
    "cut short": (b'{"a": ', "not JSON"),
    "an array": (b"[1]", "not an object"),
    "a number": (b"1", "not an object"),
    "null": (b"null", "not an object"),
    "deep arrays": (b"[" * 200_000, "nested"),
    "deep objects": (b'{"a":' * 200_000, "nested"),
    "deep and whole": (b'{"a":' + b"[" * 300 + b"]" * 300 + b"}", "nested"),
    "just too deep": (b'{"a":' + b"[" * MOST_DEPTH + b"]" * MOST_DEPTH + b"}", "nested"),
    "a long number": (f'{{"a": {LONG}}}'.encode(), "digits"),
    "a number of 1,000 digits": (b'{"a": ' + b"9" * 1_000 + b"}", "digits"),
    "not a number": (b'{"a": NaN}', "NaN"),
    "infinity": (b'{"a": [-Infinity]}', "NaN"),
    "a number too large": (b'{"a": 1e999}', "NaN"),
    "a name twice": (b'{"a": 1, "b": 2, "a": 3}', "twice"),
    "a name twice inside": (b'{"a": [{"b": 1, "b": 1}]}', "twice"),
    "Latin-1": (b'{"a": "caf\xe9"}', "not UTF-8: byte 0xe9 in line 1"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "UTF-16"),
    "UTF-32": ('{"a": 1}'.encode("utf-32"), "UTF-32"),
    "zeros": (bytes(1_000), "not JSON"),
}


@pytest.mark.parametrize("name", NO_JSON)
def test_what_is_no_json_object_is_a_value_error_with_its_reason(name, tmp_path):
    content, word = NO_JSON[name]
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match=word):
        read_json(tmp_path / "file")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"a = " + b"[" * 5_000 + b"]" * 5_000, "nested"),
        (b"a = " + b"[" * 200_000, "nested"),
        (b"a = " + b"{b = " * 5_000, "nested"),
        (b"a" + b".a" * 300 + b" = 1", "nested"),
        (f"a = {LONG}".encode(), "digits"),
        (b"a = 0x" + b"f" * 5_000, "digits"),
        (b"a = 1\na = 2", "not TOML"),
        (b"hello", "not TOML"),
        (b"a = '\xff'", "not UTF-8"),
        ("a = 1".encode("utf-16"), "UTF-16"),
    ],
)
def test_what_is_no_toml_is_a_value_error_with_its_reason(content, word):
    with pytest.raises(ValueError, match=word):
        parse_toml(content)


def test_what_is_whole_is_read():
    value = {"a": [1, -2.5, None, True, "ü\u2028\ud800"], "b": {"c": 2**63}}
    assert parse_json(json.dumps(value)) == value
    assert parse_json(b"\xef\xbb\xbf{}") == {}
    assert parse_json(b'{"a":' + b"[" * (MOST_DEPTH - 2) + b"]" * (MOST_DEPTH - 2) + b"}")
    assert parse_toml(b"\xef\xbb\xbfa = 1\r\nb = inf") == {"a": 1, "b": float("inf")}
    assert utf8("né\r\n".encode("utf-8-sig")) == "né\r\n"


def test_a_file_has_a_largest_size(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_bytes(file, 5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        read_bytes(file, 4)
    with file.open("r+b") as stream:
        stream.truncate(2**40)  # a hole: it takes no room
    with pytest.raises(ValueError, match="more than"):
        read_json(file)
    with pytest.raises(ValueError, match="more than"):
        read_lines(file)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_pipe_or_a_device_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # whoever opens it to read waits for a writer
    for place in (tmp_path / "pipe", "/dev/zero", "/dev/null"):
        with pytest.raises(OSError, match="not a regular file"):
            read_bytes(place)
    (tmp_path / "link").symlink_to("/dev/zero")
    with pytest.raises(OSError, match="not a regular file"):
        read_json(tmp_path / "link")
    with pytest.raises(ValueError, match="more than 9 bytes"):
        read_stream(io.BytesIO(b"1234567890"), 9)  # named by the user: read up to its limit
    assert read_stream(io.BytesIO(b"123456789"), 9) == b"123456789"


def test_the_systems_refusals_are_told_in_words(tmp_path):
    (tmp_path / "file").touch()
    for place, words in {
        "nothing": "no such file",
        "file/inside": "not a folder",
        "x" * 300: "too long",
        ".": "a folder",
    }.items():
        if os.name == "nt" and place == ".":
            continue  # there it may not be opened at all
        with pytest.raises(OSError) as caught:  # noqa: PT011 (which one is the system's choice)
            read_bytes(tmp_path / place)
        assert words in why(caught.value), place
    assert why(PermissionError(13, "Permission denied")) == "permission denied"
    assert why(OSError(5, "Input/output error")) == "Input/output error"
    assert why(OSError()) == "OSError"
    assert why(KeyError("steps")) == "it lacks 'steps'"


def test_lines_of_a_file_that_is_not_there_are_none(tmp_path):
    assert read_lines(tmp_path / "none") == [b""]
    (tmp_path / "some").write_bytes(b"a\nb\r\nc")
    assert read_lines(tmp_path / "some") == [b"a", b"b\r", b"c"]
