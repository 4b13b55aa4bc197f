"""What is written whole or not at all: and what is left of a writer that was killed goes, that of a live one stays."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from minigpt import atomic
from minigpt.atomic import LOCK, PARTIAL, atomic_directory, remove_leftovers, replacing, write_file
from minigpt.errors import DataError

WRITER = """
import sys
import threading
from pathlib import Path
from minigpt.atomic import replacing
with replacing(Path(sys.argv[1])) as temporary:
    if sys.argv[2] == "folder":
        temporary.mkdir()
        (temporary / "inner").write_bytes(b"half")
    else:
        temporary.write_bytes(b"half")
    print("writing", flush=True)
    sys.stdin.read()
"""


def writer(path: Path, kind: str) -> subprocess.Popen[bytes]:
    """A process that has written half, and waits."""
    command = [sys.executable, "-c", WRITER, str(path), kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing" + (b"\r\n" if sys.platform == "win32" else b"\n")
    return process


@pytest.fixture(params=["folder", "file"])
def busy(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """One that writes `books`."""
    process = writer(tmp_path / "books", request.param)
    yield process
    process.kill()
    process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_killed_writers_leavings_go_and_a_live_ones_stay(busy: subprocess.Popen[bytes], tmp_path: Path):
    left = names(tmp_path)
    assert len(left) == 2
    write_file(tmp_path / "other.json", "{}")  # another writer in the folder
    assert names(tmp_path) == [*left, "other.json"]
    busy.kill()
    busy.wait()
    with atomic_directory(tmp_path / "books") as folder:
        (folder / "whole").touch()
    assert names(tmp_path) == ["books", "other.json"]
    assert names(tmp_path / "books") == ["whole"]


def test_a_live_writer_ends_well_whoever_writes_beside_it(busy: subprocess.Popen[bytes], tmp_path: Path):
    for _ in range(3):
        write_file(tmp_path / "books.json", "{}")
    busy.communicate(b"")
    assert busy.returncode == 0
    assert names(tmp_path) == ["books", "books.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, OSError])
def test_nothing_is_left_of_what_failed_and_the_old_file_stands(tmp_path: Path, error: type[BaseException]):
    file = tmp_path / "file"
    file.write_text("old")

    def fail(path: Path) -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise error

    def fail_in_folder(path: Path) -> None:
        with atomic_directory(path) as temporary:
            (temporary / "inner").touch()
            raise error

    with pytest.raises(error):
        fail(file)
    with pytest.raises(DataError if error is OSError else error):
        fail_in_folder(tmp_path / "new" / "folder")
    assert names(tmp_path) == ["file"]
    assert file.read_text() == "old"


def test_only_our_own_leavings_are_taken(tmp_path: Path):
    own = tmp_path / f".x\n.1f3c9a2b{PARTIAL}"
    others = [tmp_path / name for name in (f".x{PARTIAL}", f".x{PARTIAL}{LOCK}", f"x.1f3c9a2b{PARTIAL}{LOCK}", ".lock")]
    for path in (own, own.with_name(own.name + LOCK), *others):
        path.touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == sorted(path.name for path in others)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other links and no locks of this kind")
def test_a_link_is_removed_and_not_followed(tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "text.txt").touch()
    link = tmp_path / f".x.1f3c9a2b{PARTIAL}"
    link.symlink_to(tmp_path / "mine")
    link.with_name(link.name + LOCK).touch()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["mine"]
    assert names(tmp_path / "mine") == ["text.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no flock")
def test_a_file_system_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*arguments: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(atomic.fcntl, "flock", refused)
    with replacing(tmp_path / "first") as temporary:
        temporary.touch()
        write_file(tmp_path / "second", "x")
        assert temporary.exists()
    assert names(tmp_path) == ["first", "second"]


def test_a_name_of_any_length_has_room(tmp_path: Path):
    write_file(tmp_path / ("x" * 250), "text")
    assert (tmp_path / ("x" * 250)).read_text() == "text"


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    write_file(tmp_path / "file", "é\n")
    write_file(tmp_path / "file", b"\xff\n")
    assert (tmp_path / "file").read_bytes() == b"\xff\n"

    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("minigpt.atomic.sync", full)
    with pytest.raises(OSError, match="No space"):
        write_file(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"\xff\n"


def test_two_writers_of_one_file_do_not_tear_each_others(tmp_path):
    file, texts = tmp_path / "best.json", [letter * 300_000 for letter in "ab"]
    file.write_text(texts[0])
    errors, seen = [], set()

    def write(text):
        try:
            for _ in range(20):
                write_file(file, text)
        except OSError as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=[text]) for text in texts]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        with contextlib.suppress(PermissionError):  # Windows, at the moment of the change
            seen.add(file.read_text())
    if sys.platform != "win32":  # where a file that is being read is not replaced, and its writer told so
        assert errors == []
    assert seen <= set(texts)
    assert [path.name for path in tmp_path.iterdir()] == ["best.json"]


def test_a_small_file_that_was_never_finished_is_cleared_up(tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *paths: None)  # the power fails before it
    monkeypatch.setattr(Path, "unlink", lambda path, missing_ok=False: None)
    write_file(tmp_path / "best.json", "{}")
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2  # itself, and the lock that nobody holds
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == []
