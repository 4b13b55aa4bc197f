"""A folder's files in order, and what is skipped: never silent, never a traceback."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import socket
import sys
from pathlib import Path

import pytest

from minigpt.data import folders
from minigpt.data.folders import MAX_GROUPS, list_folder, no_files, suffix_of
from minigpt.errors import DataError
from minigpt.source_options import SourceOptions

no_links = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such files, or asks for a right")


def fill(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def read(folder: Path, **options: tuple[str, ...]) -> list[str]:
    return [
        Path(file).relative_to(folder).as_posix() for file in list_folder(str(folder), SourceOptions(**options)).files
    ]


def skipped(folder: Path, **options: tuple[str, ...]) -> list[str]:
    return list(list_folder(str(folder), SourceOptions(**options)).skipped())


def notes(folder: Path, **options: tuple[str, ...]) -> str:
    chosen = SourceOptions(**options)
    return "\n".join(list_folder(str(folder), chosen).notes(chosen))


def test_files_come_in_order_and_known_suffixes_need_no_pattern(tmp_path: Path):
    fill(
        tmp_path,
        b_txt="",
        a__z_md="",
        a__y_TXT="",
        a__deep__er__x_rst="",
        c_jsonl="",
        d_md_gz="",
        e_parquet="",
        f_text="",
    )
    assert read(tmp_path) == [
        "b.txt",
        "c.jsonl",
        "d.md.gz",
        "e.parquet",
        "f.text",
        "a/y.TXT",
        "a/z.md",
        "a/deep/er/x.rst",
    ]
    assert skipped(tmp_path) == []
    assert notes(tmp_path) == ""


def test_files_skipped_by_suffix_are_counted_with_the_patterns_that_include_them(tmp_path: Path):
    fill(tmp_path, a_txt="words", one_TEX="x" * 4000, two_tex="x" * 4000, sub__README="words", man_1="words")
    fill(tmp_path, page_html="<html>words" + "y" * 100_000, picture_png="\0\1\2\3")
    assert skipped(tmp_path) == [
        "1 .html (100 kB)",
        "2 .tex (8 kB)",
        "1 .1 (0 kB)",
        "1 README (0 kB)",
        "1 .png (0 kB)",
    ]
    found = notes(tmp_path)
    patterns = "--pattern '*.txt' --pattern '*.tex' --pattern '*.1' --pattern README"
    assert f"4 files in {tmp_path}. To read them too: {patterns}" in found
    assert "page.html is an HTML page. Convert it: `pandoc" in found
    assert "png" not in found
    chosen = tuple(word for word in shlex.split(patterns) if word != "--pattern")
    assert read(tmp_path, pattern=chosen) == ["a.txt", "man.1", "one.TEX", "two.tex", "sub/README"]
    assert notes(tmp_path, pattern=("*.txt",)) == ""  # no hints for those who choose
    assert len(skipped(tmp_path, pattern=("*.txt",))) == 5


def test_many_suffixes_are_summed_up(tmp_path: Path):
    for number in range(MAX_GROUPS + 3):
        (tmp_path / f"a.x{number}").write_text("x" * 1000 * (number + 1))
    *named, rest = skipped(tmp_path)
    assert (len(named), rest) == (MAX_GROUPS, "3 files with 3 other suffixes (6 kB)")


def test_patterns_choose_by_name_and_by_path_whatever_the_case(tmp_path: Path):
    fill(tmp_path, a_PY="", b_py="", c_txt="", lib__d_py="", lib__old__e_py="", _git__f_py="")
    assert read(tmp_path, pattern=("*.py",)) == ["a.PY", "b.py", "lib/d.py", "lib/old/e.py"]
    assert read(tmp_path, pattern=("lib/*.py", "c.*")) == ["c.txt", "lib/d.py", "lib/old/e.py"]
    assert read(tmp_path, pattern=("*.py",), exclude=("old",)) == ["a.PY", "b.py", "lib/d.py"]
    assert read(tmp_path, pattern=("*.py",), exclude=("lib/", "B.*")) == ["a.PY"]
    assert read(tmp_path, pattern=("*.py",), exclude=("lib/*.py",)) == ["a.PY", "b.py"]
    assert "1 excluded file" in skipped(tmp_path, pattern=("*.py",), exclude=("b.py",))
    assert "1 excluded folder" in skipped(tmp_path, exclude=("lib",))
    assert notes(tmp_path, exclude=("lib", "nowhere/*")).startswith("--exclude 'nowhere/*' matches nothing")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"pattern": ("txt",)}, r"nothing that matches txt, but 1 \.txt.*whole names: --pattern '\*\.txt'"),
        ({"exclude": ("*",)}, r"1 excluded file.*Exclude less than --exclude '\*'"),
        ({"pattern": ("*.py",)}, r"nothing that matches \*\.py.*choose its files"),
    ],
)
def test_a_folder_without_any_file_to_read_says_what_to_change(tmp_path: Path, options, words: str):
    fill(tmp_path, a_txt="words")
    chosen = SourceOptions(**options)
    assert re.search(words, str(no_files(list_folder(str(tmp_path), chosen), chosen)))


def test_hidden_files_and_folders_are_counted(tmp_path: Path):
    fill(tmp_path, a_txt="", _b_txt="", _c_txt="", _git__d_txt="", _out_1f3c9a2b_partial__train_tokens="")
    (tmp_path / ".out.1f3c9a2b.partial.lock").touch()
    assert read(tmp_path) == ["a.txt"]
    assert sorted(skipped(tmp_path)) == ["1 hidden folder", "2 hidden files"]


@no_links
def test_links_and_what_is_not_a_file_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = fill(tmp_path / "in", a_txt="")
    outside = fill(tmp_path / "out", b_txt="words")
    (folder / "file.txt").symlink_to(outside / "b.txt")
    (folder / "folder").symlink_to(outside)
    (folder / "circle").symlink_to(folder)
    (folder / "gone.txt").symlink_to("nowhere")
    (folder / "itself.txt").symlink_to("itself.txt")
    os.mkfifo(folder / "pipe.txt")
    monkeypatch.chdir(folder)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.txt")
    (folder / "zero.txt").symlink_to("/dev/zero")
    assert read(folder) == ["a.txt", "file.txt"]
    assert sorted(skipped(folder)) == ["1 device", "1 named pipe", "1 socket", "2 broken links", "2 linked folders"]


def test_runs_and_data_sets_are_skipped(tmp_path: Path, run_folder: Path, data_folder: Path):
    import shutil

    fill(tmp_path, a_txt="")
    shutil.copytree(run_folder, tmp_path / "runs" / "first")
    shutil.copytree(data_folder, tmp_path / "data")
    assert read(tmp_path) == ["a.txt"]
    assert sorted(skipped(tmp_path)) == ["1 Mini-GPT data set", "1 Mini-GPT run"]
    for folder, kind in (("data", "data set"), ("runs/first", "run")):
        with pytest.raises(DataError, match=f"is a Mini-GPT {kind}, not text"):
            read(tmp_path / folder)


def test_a_folder_without_access_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    fill(tmp_path, a_txt="", closed__b_txt="")
    scandir = os.scandir

    def refuse(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(folders.os, "scandir", refuse)
    with pytest.raises(DataError, match=r"closed cannot be read.*permission denied.*--exclude closed"):
        read(tmp_path)
    assert read(tmp_path, exclude=("closed",)) == ["a.txt"]
    with pytest.raises(DataError, match=r"closed cannot be read.*chmod") as error:
        read(tmp_path / "closed")
    assert "--exclude" not in str(error.value)


def test_a_compressed_file_is_sniffed(tmp_path: Path):
    fill(tmp_path, a_txt="")
    (tmp_path / "b.org.gz").write_bytes(gzip.compress(b"* words"))
    (tmp_path / "c.gz").write_bytes(gzip.compress(b"words")[:-9])
    assert "--pattern '*.txt' --pattern '*.org.gz'" in notes(tmp_path)


@no_links
def test_a_very_deep_folder_is_walked(tmp_path: Path):
    deep = tmp_path.joinpath(*["d"] * 300)
    deep.mkdir(parents=True)
    (deep / "a.txt").write_text("")
    assert read(tmp_path) == ["d/" * 300 + "a.txt"]


def test_suffixes():
    assert [
        suffix_of(name) for name in ("a.TXT", "b/c.md.gz", "d.gz", "README", ".e", "Mr. Smith goes to town", "f.")
    ] == [
        *(".txt", ".md.gz", ".gz", "", "", "", ""),
    ]
