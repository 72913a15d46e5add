"""Archives: what is unpacked, and that the first entry that breaks a rule refuses all of it and leaves nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import resource
import stat
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archives import overlapping_zip, packed, tar, tar_entry, unix_mode, zipped
from model_server.errors import LoadFailure, Reason
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage import archive_rules
from model_server.storage.archive_rules import Contents, UnsafeArchive
from model_server.storage.fetching import fetch
from model_server.storage.files import MAX_FILES

SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".zip")


def unpacked(tmp_path: Path, archive: bytes, suffix: str, **storage: Any) -> Any:
    """The archive as a model of the command line, whose directory /models is `tmp_path`/models."""
    path = tmp_path / f"model{suffix}"
    path.write_bytes(archive)
    (tmp_path / "models").mkdir(exist_ok=True)
    model = ModelSettings("m", str(path), hashlib.sha256(archive).hexdigest(), local_files=True)
    return fetch(model, StorageSettings(**storage), tmp_path / "models")


def refusal(tmp_path: Path, archive: bytes, suffix: str, **storage: Any) -> LoadFailure:
    with pytest.raises(LoadFailure) as refused:
        unpacked(tmp_path, archive, suffix, **storage)
    assert list((tmp_path / "models").iterdir()) == [], "something was left behind"
    return refused.value


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_becomes_the_directory_that_is_in_it(tmp_path: Path, suffix: str) -> None:
    files = [("pkg/", b""), ("pkg/__init__.py", b""), ("pkg/sub/mod.py", b"x = 1\n"), ("weights", bytes(300_000))]
    archive = packed(suffix, files)
    found = unpacked(tmp_path, archive, suffix)
    there = {str(path.relative_to(found.path)): path.read_bytes() for path in found.path.rglob("*") if path.is_file()}
    assert there == {name: content for name, content in files if not name.endswith("/")}
    assert found.digest == hashlib.sha256(archive).hexdigest(), "the digest is the archive's"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_of_one_file_is_that_file(tmp_path: Path, suffix: str) -> None:
    found = unpacked(tmp_path, packed(suffix, [("model.onnx", b"abc")]), suffix)
    assert (found.path.name, found.path.read_bytes()) == ("model.onnx", b"abc")
    assert stat.S_IMODE(found.path.stat().st_mode) & 0o111 == 0


def test_what_tar_makes_of_a_directory_is_taken(tmp_path: Path) -> None:
    entries = [tar_entry(".", b"", type=tarfile.DIRTYPE, mode=0o2775), tar_entry("./a.py"), tar_entry("./b/c.py")]
    found = unpacked(tmp_path, tar(*entries), ".tar").path
    assert sorted(str(path.relative_to(found)) for path in found.rglob("*")) == ["a.py", "b", "b/c.py"]


def test_what_an_earlier_container_unpacked_is_replaced(tmp_path: Path) -> None:
    for content in (b"one", b"two"):
        assert unpacked(tmp_path, packed(".zip", [("model.onnx", content)]), ".zip").path.read_bytes() == content
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["unpacked"]


NAMES = [
    pytest.param("../evil", "lead out", id="dots"),
    pytest.param("a/../../evil", "lead out", id="dots on the way"),
    pytest.param("/etc/evil", "lead out", id="absolute"),
    pytest.param("C:evil", "another place", id="a drive"),
    pytest.param("a\\..\\evil", "another place", id="backslashes"),
    pytest.param("a\nb", "control character", id="a line feed"),
    pytest.param("\u202excod.a", "control character", id="letters that turn the text round"),
    pytest.param("x" * 256, "a part of over 255 bytes", id="a long part"),
    pytest.param("x/" * 520 + "y", "over 1024 bytes", id="a long name"),
]


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize(("name", "says"), NAMES)
def test_a_name_that_is_no_plain_relative_one(tmp_path: Path, suffix: str, name: str, says: str) -> None:
    failure = refusal(tmp_path, packed(suffix, [("good", b"abc"), (name, b"abc")]), suffix)
    assert failure.reason is Reason.UNSAFE_ARCHIVE
    assert says in failure.message
    assert not list(tmp_path.rglob("*evil*"))


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(tar_entry("a", b"", type=tarfile.SYMTYPE, linkname="/etc"), id="a symbolic link"),
        pytest.param(tar_entry("a", b"", type=tarfile.LNKTYPE, linkname="good"), id="a hard link"),
        pytest.param(tar_entry("a", b"", type=tarfile.FIFOTYPE), id="a pipe"),
        pytest.param(tar_entry("a", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=3), id="a device"),
        pytest.param(tar_entry("a", b"", type=tarfile.BLKTYPE), id="a block device"),
        pytest.param(tar_entry("a", b"", type=tarfile.CONTTYPE), id="a contiguous file"),
        pytest.param(tar_entry("a", b"", type=tarfile.GNUTYPE_SPARSE), id="a sparse file"),
        pytest.param(tar_entry("a", b"", type=b"Z"), id="something unknown"),
        pytest.param(tar_entry("a", mode=0o4755), id="set-user-id"),
        pytest.param(tar_entry("a", mode=0o2755), id="set-group-id"),
    ],
)
def test_a_tar_holds_plain_files_and_directories_only(tmp_path: Path, entry: Any) -> None:
    failure = refusal(tmp_path, tar(tar_entry("good"), entry), ".tar")
    assert (failure.reason, "not a plain file" in failure.message) == (Reason.UNSAFE_ARCHIVE, True), failure.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        pytest.param(unix_mode(stat.S_IFLNK), "not a plain file", id="a symbolic link"),
        pytest.param(unix_mode(stat.S_IFIFO), "not a plain file", id="a pipe"),
        pytest.param(unix_mode(stat.S_IFCHR), "not a plain file", id="a device"),
        pytest.param(unix_mode(stat.S_IFREG, 0o4755), "not a plain file", id="set-user-id"),
        pytest.param({"compress_type": 12}, "another method than deflate", id="bzip2"),
        pytest.param({"compress_type": 14}, "another method than deflate", id="lzma"),
    ],
)
def test_a_zip_holds_plain_files_and_directories_only(tmp_path: Path, fields: Any, says: str) -> None:
    failure = refusal(tmp_path, zipped(("good", b"abc", {}), ("a", b"/etc", fields)), ".zip")
    assert (failure.reason, says in failure.message) == (Reason.UNSAFE_ARCHIVE, True), failure.message


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = bytearray(zipped(("a", b"abc", {})))
    archive[archive.index(b"PK\x01\x02") + 8] |= 1
    assert "encrypted" in refusal(tmp_path, bytes(archive), ".zip").message


def test_a_zip_whose_directory_hides_part_of_a_name_is_refused(tmp_path: Path) -> None:
    archive = zipped(("model.onnx_.py", b"abc", {})).replace(b"model.onnx_.py", b"model.onnx\0.py")
    assert "not its whole name" in refusal(tmp_path, archive, ".zip").message


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
@pytest.mark.parametrize(
    "names",
    [
        pytest.param(("a", "a"), id="twice"),
        pytest.param(("a", "./a"), id="twice, written otherwise"),
        pytest.param(("a", "a/b"), id="a file, then a directory"),
        pytest.param(("a/b", "a"), id="a directory, then a file"),
        pytest.param(("a", "a/"), id="a file, then the directory itself"),
    ],
)
def test_two_entries_for_one_place_are_refused(tmp_path: Path, suffix: str, names: tuple[str, str]) -> None:
    failure = refusal(tmp_path, packed(suffix, [(name, b"abc") for name in names]), suffix)
    assert failure.reason is Reason.UNSAFE_ARCHIVE
    assert "two entries are named" in failure.message or "a file and a directory" in failure.message


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("cut short", id="cut short"),
        pytest.param(b"<html>not found</html>" * 50, id="another thing altogether"),
        pytest.param(b"", id="empty"),
    ],
)
def test_a_damaged_archive_is_refused(tmp_path: Path, suffix: str, damage: str | bytes) -> None:
    archive = packed(suffix, [("a", bytes(range(256)) * 2000), ("b", b"abc")])
    failure = refusal(tmp_path, archive[: len(archive) // 2] if isinstance(damage, str) else damage, suffix)
    assert failure.reason in (Reason.UNSAFE_ARCHIVE, Reason.UNSUPPORTED_FORMAT)


@pytest.mark.parametrize("suffix", [".tar.gz", ".tar.zst", ".zip"])
def test_a_wrong_checksum_is_noticed(tmp_path: Path, suffix: str) -> None:
    archive = bytearray(packed(suffix, [("a", bytes(range(256)) * 2000)]))
    at = {".zip": archive.rfind(b"PK\x01\x02") + 16, ".tar.gz": -8, ".tar.zst": -4}[suffix]
    archive[at] ^= 1
    assert refusal(tmp_path, bytes(archive), suffix).reason is Reason.UNSAFE_ARCHIVE


def test_an_archive_without_files_is_no_model(tmp_path: Path) -> None:
    assert "nothing in" in refusal(tmp_path, tar(), ".tar").message


# Bombs: refused within two seconds, and never more on the disk or in memory than allowed -----------------------------


def _headers(kind: bytes, size: int) -> bytes:
    """A tar whose extended header claims `size` bytes, and has them."""
    member = tarfile.TarInfo("././@LongLink")
    member.type, member.size = kind, size
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT) + b"x" * size, compresslevel=1)


def _nested_headers() -> bytes:
    extended = tarfile.TarInfo("x")
    extended.type = tarfile.XHDTYPE
    return gzip.compress(extended.tobuf(tarfile.GNU_FORMAT) * 5000)


BOMBS = [
    pytest.param(".tgz", lambda: packed(".tgz", [("a", bytes(50_000_000))]), "a hundred times", id="gzip"),
    pytest.param(".tar.zst", lambda: packed(".tar.zst", [("a", bytes(50_000_000))]), "a hundred times", id="zstd"),
    pytest.param(".zip", lambda: packed(".zip", [("a", bytes(50_000_000))]), "a hundred times", id="deflate"),
    pytest.param(".zip", lambda: overlapping_zip(20, 15_000_000), "overlaps another entry", id="overlapping entries"),
    pytest.param(
        ".zip", lambda: packed(".zip", [(f"{n}/", b"") for n in range(MAX_FILES + 1)]), "more than", id="many entries"
    ),
    pytest.param(
        ".zip", lambda: packed(".zip", [("x" * 200 + f"{n}", b"") for n in range(20_000)]), "directory has", id="names"
    ),
    pytest.param(".tgz", lambda: _headers(tarfile.GNUTYPE_LONGNAME, 50_000_000), "a header", id="a long name's header"),
    pytest.param(".tgz", lambda: _headers(tarfile.XHDTYPE, 50_000_000), "a header", id="an extended header"),
    pytest.param(".tgz", _nested_headers, "damaged", id="headers of headers"),
    pytest.param(
        ".tgz", lambda: gzip.compress(tar(tar_entry("a")) + bytes(50_000_000)), "an end", id="zeros after the end"
    ),
]


@pytest.mark.parametrize(("suffix", "made", "says"), BOMBS)
def test_a_bomb_is_refused_soon_and_in_little_space(tmp_path: Path, suffix: str, made: Any, says: str) -> None:
    archive = made()
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    failure = refusal(tmp_path, archive, suffix)
    assert (failure.reason, says in failure.message) == (Reason.UNSAFE_ARCHIVE, True), failure.message
    assert time.process_time() - began < 2
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 40


def test_entries_are_counted_while_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_rules, "MAX_FILES", 20)
    archive = packed(".tar", [(f"d{n // 5}/{n}", b"") for n in range(16)])
    assert "more than 20 entries" in refusal(tmp_path, archive, ".tar").message


def test_the_archive_and_its_content_together_have_the_bound_of_a_model(tmp_path: Path) -> None:
    archive = packed(".tar", [("a", bytes(500_000)), ("b", bytes(500_000))])
    assert unpacked(tmp_path, archive, ".tar", max_bytes=len(archive) + 1_000_000)
    for left in (tmp_path / "models").iterdir():
        left.rename(tmp_path / "elsewhere")
    assert "larger than" in refusal(tmp_path, archive, ".tar", max_bytes=len(archive) + 999_999).message


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", *rest: Any) -> Any:
        return real(Path("/dev/full"), "wb") if mode == "xb" else real(path, mode, *rest)

    monkeypatch.setattr(Path, "open", full)
    assert "No space left on device" in refusal(tmp_path, packed(".tar", [("a", b"abc")]), ".tar").message


def test_unpacking_has_the_time_that_is_left_of_fetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from model_server.storage import archives

    real = archives.unpack
    monkeypatch.setattr(archives, "unpack", lambda *args: (setattr(args[3], "seconds", -1), real(*args))[1])
    assert "did not arrive within" in refusal(tmp_path, packed(".zip", [("a", b"abc")]), ".zip").message


def test_a_zstd_window_that_takes_much_memory_is_refused(tmp_path: Path) -> None:
    from backports import zstd

    options = {int(zstd.CompressionParameter.window_log): 27, int(zstd.CompressionParameter.compression_level): 1}
    out = io.BytesIO()
    with zstd.ZstdFile(out, "w", options=options) as stream:
        stream.write(tar(tar_entry("a", bytes(200_000))))
    assert refusal(tmp_path, out.getvalue(), ".tar.zst").reason is Reason.UNSAFE_ARCHIVE


# The rules alone -----------------------------------------------------------------------------------------------------

PARTS = st.sampled_from(["a", "b", ".", "..", "", "a\\b", "C:", "é", "\0", "\u202e", "x" * 300, "~", "-", " "])


@given(st.lists(PARTS, min_size=1, max_size=5), st.booleans())
def test_whatever_is_admitted_lies_within(parts: list[str], directory: bool) -> None:
    try:
        path = Contents(1000, 2**30).admit("/".join(parts), directory=directory)
    except UnsafeArchive:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert all(character.isprintable() and character != "\\" for character in str(path))


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "a/b", "a/c", "a/b/c"]), st.booleans()), max_size=6))
def test_whatever_is_admitted_can_all_be_written(entries: list[tuple[str, bool]]) -> None:
    contents, files, directories = Contents(1000, 2**30), set(), set()
    for name, directory in entries:
        try:
            path = contents.admit(name, directory=directory)
        except UnsafeArchive:
            return
        assert path not in files
        assert not files & set(path.parents)
        assert directory or path not in directories
        (directories if directory else files).add(path)
        directories.update(path.parents)
