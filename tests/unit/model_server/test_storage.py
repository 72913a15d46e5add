"""Where models may come from: URIs, addresses, and what is written to disk."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from model_artifacts import write
from model_server.errors import LoadFailure, Reason
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage import addresses, uri
from model_server.storage.attempts import PAUSES, TransientError, persist
from model_server.storage.fetching import fetch
from model_server.storage.files import combined, digest
from model_server.storage.incoming import Incoming

SHA = "ab" * 32


@pytest.mark.parametrize(
    ("text", "scheme", "name"),
    [
        ("https://models.example/a/digits.onnx", "https", "digits.onnx"),
        ("https://models.example/a/digits.onnx?version=3", "https", "digits.onnx"),
        ("https://models.example:8443", "https", "model"),
        ("https://models.example/%2fetc", "https", "model"),
        ("s3://models/digits/1", "s3", "1"),
        ("s3://models/digits/1/", "s3", "1"),
        ("gs://my_models.example/digits/1.onnx", "gs", "1.onnx"),
        ("az://account1/my-models/digits/1", "az", "1"),
        ("pvc://shared.models/digits/1.tar.gz", "pvc", "1.tar.gz"),
        ("image://registry.example/models/digits@sha256:" + SHA, "image", "digits@sha256:" + SHA),
    ],
)
def test_what_may_be_fetched(text: str, scheme: str, name: str) -> None:
    parsed = uri.parse(text, sha256="", local_files=False)
    assert parsed.scheme == scheme
    assert parsed.name == name or scheme == "image"


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param("digits.onnx", id="a path"),
        pytest.param("/etc/passwd", id="an absolute path"),
        pytest.param("file:///etc/passwd", id="a file"),
        pytest.param("FILE:///etc/passwd", id="a file in capitals"),
        pytest.param("http://models.example/m", id="plain http without a digest"),
        pytest.param("ftp://models.example/m", id="another scheme"),
        pytest.param("https://user:secret@models.example/m", id="credentials"),
        pytest.param("https://ok.example\\@169.254.169.254/", id="a backslash"),
        pytest.param("https://ok.example @x/", id="a blank"),
        pytest.param("https://ok.example/\nHost: x", id="a line feed"),
        pytest.param("https:///m", id="no host"),
        pytest.param("https://[::1/m", id="half an address"),
        pytest.param("https://host:port/m", id="a port that is a word"),
        pytest.param("s3://bucket/a/../b", id="dots"),
        pytest.param("s3://bucket/a/%2e%2e/b", id="encoded dots"),
        pytest.param("s3://bucket/a/%252e%252e%252fb", id="dots encoded twice"),
        pytest.param("s3://bucket", id="no key"),
        pytest.param("s3://bucket/", id="an empty key"),
        pytest.param("s3:///key", id="no bucket"),
        pytest.param("s3://bucket/key?x=1", id="a query for an object"),
        pytest.param("gs://bucket", id="no object"),
        pytest.param("gs://Bucket/m", id="a bucket in capitals"),
        pytest.param("gs://bucket:80/m", id="a port for a bucket"),
        pytest.param("gs://key:secret@bucket/m", id="credentials for a bucket"),
        pytest.param("az://account/m", id="no container"),
        pytest.param("az://account.blob.core.windows.net/models/m", id="a host for an account"),
        pytest.param("az://account/a--b/m", id="a container's name with two hyphens"),
        pytest.param("az://account/models/m?sig=secret", id="a signature in the URI"),
        pytest.param("pvc://claim", id="no path"),
        pytest.param("pvc://other/../../claim/m", id="dots in a claim"),
        pytest.param("pvc://Claim/m", id="a claim in capitals"),
        pytest.param("https://models.example/" + "x" * 2048, id="too long"),
    ],
)
def test_what_may_not(text: str) -> None:
    with pytest.raises(LoadFailure) as refused:
        uri.parse(text, sha256="", local_files=False)
    assert refused.value.reason is Reason.INVALID_SETTINGS
    assert "secret" not in refused.value.message


def test_plain_http_needs_a_digest() -> None:
    assert uri.parse("http://models.example/m", sha256=SHA, local_files=False).scheme == "http"


def test_the_command_line_may_name_files() -> None:
    assert uri.parse("some/digits.onnx", sha256="", local_files=True).path == str(Path("some/digits.onnx").absolute())
    assert uri.parse("file:///some/digits.onnx", sha256="", local_files=True).path == "/some/digits.onnx"


@pytest.mark.parametrize(
    ("address", "forbidden"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("0.0.0.0", True),  # noqa: S104 - what is tested
        ("0.1.2.3", True),
        ("255.255.255.255", True),
        ("169.254.169.254", True),
        ("169.254.1.1", True),
        ("100.100.100.200", True),
        ("168.63.129.16", True),
        ("224.0.0.1", True),
        ("::1", True),
        ("::", True),
        ("fe80::1", True),
        ("fd00:ec2::254", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:169.254.169.254", True),
        ("::127.0.0.1", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:7f00:1::", True),
        ("10.0.0.7", False),
        ("192.168.1.1", False),
        ("93.184.216.34", False),
        ("fd00::7", False),
        ("2606:2800:220:1::1", False),
        ("::ffff:10.0.0.7", False),
        ("64:ff9b::a00:7", False),
    ],
)
def test_addresses_of_this_machine_and_of_metadata_services_are_forbidden(address: str, forbidden: bool) -> None:
    assert addresses.forbidden(ip_address(address)) is forbidden


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f000001", "2130706433", "127.1", "::1"])
def test_a_host_is_judged_by_what_it_resolves_to(host: str) -> None:
    with pytest.raises(LoadFailure, match="not fetched from loopback"):
        addresses.resolve(host, 80)
    assert addresses.resolve(host, 80, any_address=True)


def test_one_forbidden_address_among_good_ones_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 80)) for text in ("93.184.216.34", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(LoadFailure):
        addresses.resolve("rebinding.example", 80)


def test_a_model_appears_when_it_is_complete(tmp_path: Path) -> None:
    with Incoming(tmp_path) as incoming:
        incoming.place("digits.onnx").write_bytes(b"abc")
        assert not (tmp_path / "fetched").exists()
        assert incoming.commit() == tmp_path / "fetched" / "digits.onnx"
    assert (tmp_path / "fetched" / "digits.onnx").read_bytes() == b"abc"


def test_an_attempt_that_broke_off_leaves_nothing_behind(tmp_path: Path) -> None:
    with Incoming(tmp_path) as incoming:
        incoming.place("digits.onnx").write_bytes(b"half of")
    assert list(tmp_path.iterdir()) == []


def test_what_an_earlier_container_left_is_removed(tmp_path: Path) -> None:
    write(tmp_path, "fetched/old.onnx", b"old")
    write(tmp_path, ".incoming-x/half", b"half")
    with Incoming(tmp_path) as incoming:
        incoming.place("new.onnx").write_bytes(b"new")
        path = incoming.commit()
    assert [file.name for file in tmp_path.rglob("*") if file.is_file()] == [path.name] == ["new.onnx"]


def test_the_digest_of_several_files_is_what_sha256sum_makes_of_them(tmp_path: Path) -> None:
    names = ("pkg/b.py", "a.py", "B.py")
    for name in names:
        write(tmp_path, name, name.encode())
    command = "find . -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum"
    by_hand = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S602
    while_fetching = combined({name: hashlib.sha256(name.encode()).hexdigest() for name in names})
    assert while_fetching == digest(tmp_path) == by_hand.stdout.split()[0]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\nb"])
def test_no_name_leads_out_of_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(LoadFailure, match="can't be stored safely"), Incoming(tmp_path) as incoming:
        incoming.place(name)


def test_a_directory_that_cannot_be_written_is_told_as_such(tmp_path: Path) -> None:
    with pytest.raises(LoadFailure, match="can't write to the model directory"):
        Incoming(write(tmp_path, "file", b""))


def test_what_may_pass_is_tried_again_and_what_may_not_is_told_at_once() -> None:
    slept: list[float] = []
    outcomes = iter([TransientError("refused"), TransientError("refused"), "here"])

    def attempt() -> Any:
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert persist(attempt, "m", slept.append) == "here"
    assert slept == list(PAUSES[:2])


def test_giving_up_says_how_often_it_was_tried_and_what_was_last() -> None:
    def attempt() -> None:
        raise TransientError("connection refused")

    slept: list[float] = []
    with pytest.raises(LoadFailure, match="m failed 4 times, last: connection refused") as gave_up:
        persist(attempt, "m", slept.append)
    assert gave_up.value.reason is Reason.FETCH_FAILED
    assert sum(slept) < 20


def image(model_dir: Path, sha256: str = "") -> Any:
    model = ModelSettings("digits", "image://registry.example/digits:1", sha256)
    return fetch(model, StorageSettings(), model_dir)


def test_an_unpacked_image_is_its_one_file(tmp_path: Path) -> None:
    path = write(tmp_path, "digits/model.onnx", b"abc")
    assert image(tmp_path, hashlib.sha256(b"abc").hexdigest()).path == path


def test_an_unpacked_image_of_several_files_is_a_directory(tmp_path: Path) -> None:
    write(tmp_path, "a.py", b"a")
    write(tmp_path, "b.py", b"b")
    assert image(tmp_path).path == tmp_path


def test_another_digest_than_was_promised_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "model.onnx", b"abc")
    with pytest.raises(LoadFailure) as refused:
        image(tmp_path, SHA)
    assert refused.value.reason is Reason.DIGEST_MISMATCH
    assert hashlib.sha256(b"abc").hexdigest() in refused.value.message


@pytest.mark.parametrize("kind", ["link", "fifo", "nothing"])
def test_links_and_devices_are_no_model(tmp_path: Path, kind: str) -> None:
    if kind == "link":
        (tmp_path / "model.onnx").symlink_to("/etc/passwd")
    elif kind == "fifo":
        os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(LoadFailure) as refused:
        image(tmp_path)
    assert refused.value.reason is (Reason.FETCH_FAILED if kind == "nothing" else Reason.UNSAFE_FORMAT)


@pytest.mark.parametrize("local_files", [True, False])
def test_a_local_file_is_served_in_place_and_only_when_asked_for(tmp_path: Path, local_files: bool) -> None:
    path = write(tmp_path, "model.onnx", b"abc")
    model = ModelSettings("digits", str(path), local_files=local_files)
    if local_files:
        assert fetch(model, StorageSettings(), tmp_path).path == path
    else:
        with pytest.raises(LoadFailure):
            fetch(model, StorageSettings(), tmp_path)


# A claim is mounted whole, and the model served from where it lies in it ----------------------------------------------


def claimed(tmp_path: Path, path: str, sha256: str = "", **storage: Any) -> Any:
    settings = StorageSettings(**{"claim_dir": tmp_path / "claim", **storage})
    return fetch(ModelSettings("digits", f"pvc://shared/{path}", sha256), settings, tmp_path / "models")


def test_a_file_of_a_claim_is_served_in_place_and_its_digest_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "claim/digits/1/model.onnx", b"abc")
    assert claimed(tmp_path, "digits/1/model.onnx", hashlib.sha256(b"abc").hexdigest()).path == path
    assert claimed(tmp_path, "digits/1").path == path
    assert not (tmp_path / "models").exists(), "nothing was copied"


def test_several_files_of_a_claim_are_a_directory(tmp_path: Path) -> None:
    write(tmp_path, "claim/pkg/a.py", b"a")
    write(tmp_path, "claim/pkg/sub/b.py", b"b")
    found = claimed(tmp_path, "pkg/")
    assert (found.path, found.digest) == (tmp_path / "claim/pkg", digest(tmp_path / "claim/pkg"))


@pytest.mark.parametrize(
    ("path", "reason", "says"),
    [
        pytest.param("digits/2", Reason.FETCH_FAILED, "'2': No such file", id="nothing there"),
        pytest.param("empty", Reason.FETCH_FAILED, "there are no files", id="an empty directory"),
        pytest.param("link/model.onnx", Reason.UNSAFE_FORMAT, "'link' is a link", id="a link on the way"),
        pytest.param("digits/latest", Reason.UNSAFE_FORMAT, "'latest' is a link", id="a link at the end"),
        pytest.param("linked", Reason.UNSAFE_FORMAT, "'inside' is a link", id="a link among the files"),
        pytest.param("large", Reason.FETCH_FAILED, "larger than 3 bytes", id="more than allowed"),
    ],
)
def test_what_of_a_claim_is_refused(tmp_path: Path, path: str, reason: Reason, says: str) -> None:
    secret = write(tmp_path, "secret/model.onnx", b"abc")
    write(tmp_path, "claim/digits/1/model.onnx", b"abc")
    write(tmp_path, "claim/large/model.onnx", b"abcd")
    (tmp_path / "claim/empty").mkdir()
    (tmp_path / "claim/link").symlink_to(secret.parent)
    (tmp_path / "claim/digits/latest").symlink_to("1")
    (tmp_path / "claim/linked").mkdir()
    (tmp_path / "claim/linked/inside").symlink_to(secret)
    with pytest.raises(LoadFailure, match=says) as refused:
        claimed(tmp_path, path, max_bytes=3)
    assert refused.value.reason is reason


def test_what_can_not_be_read_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "claim/model.onnx", b"abc")

    def forbidden(_path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("model_server.storage.in_place.digest", forbidden)
    with pytest.raises(LoadFailure, match=r"pvc://shared/model\.onnx can't be read: Permission denied"):
        claimed(tmp_path, "model.onnx")


def test_without_a_cluster_there_is_no_claim(tmp_path: Path) -> None:
    with pytest.raises(LoadFailure, match="needs a cluster"):
        claimed(tmp_path, "model.onnx", claim_dir=None)


@pytest.mark.parametrize("change", ["overwritten", "replaced", "removed"])
def test_a_model_that_is_changed_while_it_is_loaded_is_noticed(tmp_path: Path, change: str) -> None:
    path = write(tmp_path, "claim/model.onnx", b"abc")
    found = claimed(tmp_path, "model.onnx")
    write(tmp_path, "claim/another", b"")
    found.require_unchanged()
    if change == "overwritten":
        times = path.stat()
        path.write_bytes(b"xyz")
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    elif change == "replaced":
        write(tmp_path, "claim/another", b"abc").rename(path)
    else:
        path.unlink()
    with pytest.raises(LoadFailure, match="was changed while the model was loaded") as refused:
        found.require_unchanged()
    assert refused.value.reason is Reason.DIGEST_MISMATCH
