"""Writing whole or not at all, and paths that stay below their root."""

import os
import stat
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batcli.core.errors import InputError
from batcli.core.files import (
    TEMPORARY,
    inside,
    read_json,
    replacing,
    require_directory,
    require_file,
    require_writable,
    require_writable_file,
    sha256,
    stays_below,
    write_json,
    write_text,
    writing,
)

# ---- writing -------------------------------------------------------------------------------------


def test_an_error_leaves_what_was_there(tmp_path):
    file = tmp_path / "x.txt"

    def write_half(error: type[BaseException]) -> None:
        with writing(file) as out:
            out.write("half")
            raise error

    with pytest.raises(ZeroDivisionError):
        write_half(ZeroDivisionError)
    assert list(tmp_path.iterdir()) == []
    write_text(file, "whole")
    with pytest.raises(KeyboardInterrupt):
        write_half(KeyboardInterrupt)
    assert file.read_text() == "whole"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_left_is_written_over(tmp_path):
    (tmp_path / f"{TEMPORARY}x.txt").write_text("half of something longer")
    write_text(tmp_path / "x.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]
    assert (tmp_path / "x.txt").read_text() == "whole"


def test_two_at_once_do_not_mix(tmp_path):
    with writing(tmp_path / "x.txt") as out:
        out.write("first")
        with pytest.raises(InputError, match="another run is writing here"):
            write_text(tmp_path / "x.txt", "second")
    assert (tmp_path / "x.txt").read_text() == "first"


def test_the_name_appears_only_with_all_the_content(tmp_path):
    with replacing(tmp_path / "deep/x.bin") as temporary:
        temporary.write_bytes(b"abc")
        assert not (tmp_path / "deep/x.bin").exists()
    assert (tmp_path / "deep/x.bin").read_bytes() == b"abc"
    assert len(list((tmp_path / "deep").iterdir())) == 1


def test_a_link_stays_and_its_target_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "disk/target.txt")
    write_text(tmp_path / "link.txt", "new")
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "disk/target.txt").read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on this system")
def test_a_pipe_is_written_to_and_not_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()))
    reader.start()
    write_text(pipe, "through")
    reader.join(5)
    assert got == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_json_comes_back(tmp_path):
    value = {"a": [1, None, "ü"], "b": {}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a":\n', "x.json:2: not JSON"), (b"\xff", "not JSON"), (b"[" * 200_000, "not JSON"), (b"", "not JSON")],
)
def test_what_is_no_json(tmp_path, content, message):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_json(tmp_path / "x.json")


def test_json_that_is_too_large_is_not_read(tmp_path):
    write_json(tmp_path / "x.json", "a" * 100)
    with pytest.raises(InputError, match="larger than 50 bytes"):
        read_json(tmp_path / "x.json", max_bytes=50)


# ---- what must be there --------------------------------------------------------------------------


def test_what_is_no_file(tmp_path):
    for path, message in (
        (tmp_path / "none", "no such file"),
        (tmp_path, "is a directory, not a file"),
        (tmp_path / ("x" * 300), "no such file|too long"),
        (tmp_path / "a\0b", "null|no such file"),
        (os.devnull, "is no regular file"),
    ):
        with pytest.raises(InputError, match=message):
            require_file(type(tmp_path)(path))


def test_outputs_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    for check, path, message in (
        (require_directory, tmp_path / "file", "is a file, not a directory"),
        (require_directory, tmp_path / "none", "no such directory"),
        (require_writable, tmp_path / "file", "is a file, not a directory"),
        (require_writable, tmp_path / "file/below", "cannot be written"),
        (require_writable_file, tmp_path, "is a directory, not a file"),
        (require_writable_file, tmp_path / "file/below", "is a file, not a directory"),
    ):
        with pytest.raises(InputError, match=message):
            check(path)
    assert require_writable(tmp_path / "new/folder").is_dir()
    assert require_writable_file(tmp_path / "other/x.wav").parent.is_dir()
    assert not list((tmp_path / "new/folder").iterdir())


# ---- paths below a root --------------------------------------------------------------------------

HOSTILE = ["/etc/passwd", "../x", "a/../../x", "..", "a/..", ".", "", "./", "//", "a\0b", "..\\x", "C:\\x", "a\\b"]


@pytest.mark.parametrize("relative", HOSTILE)
def test_hostile_ids_are_refused(tmp_path, relative):
    assert not stays_below(relative)
    with pytest.raises(InputError, match="leads out of"):
        inside(tmp_path, relative, "train.jsonl:3")


@pytest.mark.parametrize("relative", ["a", "a/b.npy", "./a", "a//b", "Y..x", "a/b...c", "ünï/ç"])
def test_plain_ids_are_allowed(tmp_path, relative):
    assert stays_below(relative)
    assert inside(tmp_path, relative) == tmp_path / relative


@given(st.lists(st.sampled_from(["..", ".", "a", "b..", "", "\0", "\\", "~"]), max_size=6).map("/".join))
def test_what_stays_below_lies_below(relative):
    below = os.path.normpath(f"/root/{relative}") if "\0" not in relative else ""
    if stays_below(relative):
        assert below.startswith("/root/")


def test_links_out_of_the_root_are_refused(tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(tmp_path)
    (root / "in").symlink_to(root)
    (root / "loop").symlink_to(root / "loop")
    assert inside(root, "in/x") == root / "in/x"
    with pytest.raises(InputError, match="through a link"):
        inside(root, "out/x")
    with pytest.raises(InputError):
        require_file(inside(root, "loop/x"))
    with pytest.raises(InputError):
        require_file(inside(root, "x" * 5000))


# ---- fingerprints --------------------------------------------------------------------------------


def test_a_directory_has_a_fingerprint_of_names_and_contents(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").write_bytes(b"1")
        (tmp_path / name / "y").write_bytes(b"2")
    assert sha256(tmp_path / "a") == sha256(tmp_path / "b")
    (tmp_path / "b/y").rename(tmp_path / "b/z")
    assert sha256(tmp_path / "a") != sha256(tmp_path / "b")
    assert sha256(tmp_path / "a/x") == "6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b"
