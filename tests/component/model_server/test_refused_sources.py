"""What the loader must refuse, one row each: the code, and that nothing came of it.

Sources: nothing is sent to an address that is out of bounds. Artifacts: each comes over HTTP from a server on loopback,
none of its code runs, no file appears outside the model's directory, and what is refused while it is fetched or
unpacked isn't left there. Not here, because the loader doesn't decide it: signatures (there is no policy for them yet)
and what a loaded model may do (the pod's business).
"""

from __future__ import annotations

import os
import pickle
import socket
import stat
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from archives import overlapping_zip, packed, tar, tar_entry, unix_mode, zipped
from model_artifacts import PICKLES, add_one
from model_server.errors import LoadFailure, Reason
from model_server.models import loading
from model_server.settings import ModelSettings, StorageSettings
from model_server.storage.fetching import fetch
from model_store import Asked, FileServer, Handler, serving

INVALID, FETCH, DIGEST = Reason.INVALID_SETTINGS, Reason.FETCH_FAILED, Reason.DIGEST_MISMATCH
UNSAFE, UNSUPPORTED, ARCHIVE = Reason.UNSAFE_FORMAT, Reason.UNSUPPORTED_FORMAT, Reason.UNSAFE_ARCHIVE
SHA256 = "0" * 64

# Sources --------------------------------------------------------------------------------------------------------------

NAMES = {
    "metadata.google.internal": ["169.254.169.254"],
    "one-of-two.example": ["93.184.216.34", "127.0.0.1"],
    "rebinding.example": ["93.184.216.34"],
}


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names as in NAMES, `rebinding` changing after its first look-up; no connection succeeds. → those tried."""
    real, tried, looked_up = socket.getaddrinfo, [], []

    def getaddrinfo(host: str, port: int, *args: Any, **options: Any) -> Any:
        looked_up.append(host)
        addresses = NAMES.get(host)
        if addresses is None:
            return real(host, port, *args, **options)
        if host.startswith("rebinding") and looked_up.count(host) > 1:
            addresses = ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    def create_connection(address: tuple[str, int], *_: Any, **__: Any) -> Any:
        tried.append(address[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket, "create_connection", create_connection)
    return tried


def refused_uri(tmp_path: Path, uri: str, **storage: Any) -> LoadFailure:
    settings = StorageSettings(**storage)
    with pytest.raises(LoadFailure) as refused:
        fetch(ModelSettings("m", uri, SHA256), settings, tmp_path / "models", lambda _seconds: None)
    assert not list(tmp_path.rglob("*/*")), "something was left behind"
    return refused.value


HOSTS = [
    ("25 metadata", "169.254.169.254"),
    ("25 mapped", "[::ffff:169.254.169.254]"),
    ("25 hexadecimal", "0x7f000001"),
    ("25 decimal", "2130706433"),
    ("25 short", "127.1"),
    ("25 localhost", "localhost"),
    ("25 by name", "metadata.google.internal"),
    ("26 one address of two", "one-of-two.example"),
]


@pytest.mark.parametrize("host", [pytest.param(host, id=row) for row, host in HOSTS])
@pytest.mark.parametrize("scheme", ["https", "s3", "gs", "az"])
def test_nothing_is_sent_to_this_machine_or_a_metadata_service(
    tmp_path: Path, network: list[str], host: str, scheme: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as here:  # obstore's connections don't pass our `create_connection`
        here.settimeout(0)
        port = here.getsockname()[1]
        if scheme == "https":
            failure = refused_uri(tmp_path, f"https://{host}:{port}/latest")
        else:
            uri = {"s3": "s3://models/m", "gs": "gs://models/m", "az": "az://account/models/m"}[scheme]
            failure = refused_uri(tmp_path, uri, endpoint=f"http://{host}:{port}")
        assert failure.reason is FETCH
        assert "not fetched from loopback, link-local or metadata" in failure.message
        assert network == []
        with pytest.raises(BlockingIOError):
            here.accept()


def test_26_a_name_that_means_another_address_later_is_connected_to_only_where_it_was_vetted(
    tmp_path: Path, network: list[str]
) -> None:
    failure = refused_uri(tmp_path, "https://rebinding.example/m")
    assert "rebinding.example is 127.0.0.1" in failure.message
    assert network == ["93.184.216.34"]


@pytest.mark.parametrize(
    "uri",
    [
        pytest.param("https://ok.example\\@169.254.169.254/m", id="28 a backslash"),
        pytest.param("https://user:a-canary@models.example/m", id="28 credentials"),
        pytest.param("s3://user:a-canary@models/m", id="28 credentials for a store"),
        pytest.param("s3://b/../x", id="29 dots"),
        pytest.param("s3://b/%2e%2e%2fx", id="29 encoded dots"),
        pytest.param("gs://b/%252e%252e/x", id="29 encoded twice"),
        pytest.param("az://account/models/..\\x", id="29 a backslash"),
        pytest.param("pvc://claim/../../etc/inflight/storage/key", id="29 out of a claim"),
        pytest.param("file:///etc/passwd", id="23 a file"),
        pytest.param("/var/run/secrets/kubernetes.io/serviceaccount/token", id="23 a path"),
    ],
)
def test_a_uri_that_is_refused_as_it_stands(tmp_path: Path, network: list[str], uri: str) -> None:
    failure = refused_uri(tmp_path, uri, claim_dir=tmp_path)
    assert failure.reason is INVALID
    assert "canary" not in failure.message
    assert network == []


# Artifacts ------------------------------------------------------------------------------------------------------------


class Planted:
    """A pickle of this makes a directory called `ran` in the current one; no scanner knows it for dangerous."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (os.mkdir, ("ran",))


def external(location: str) -> bytes:
    model = onnx.load_from_string(add_one(external=True))
    model.graph.initializer[0].external_data[0].value = location
    content: bytes = model.SerializeToString()
    return content


def custom_operator() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Evil", ["x"], ["y"], domain="evil.so")], "g", [x], [y])
    content: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("evil.so", 1)]).SerializeToString()
    return content


def safetensors(header_bytes: int) -> bytes:
    return header_bytes.to_bytes(8, "little") + b'{"__metadata__": {"_target_": "os.mkdir"}}'


def row(number: str, name: str, content: Any, reason: Reason | tuple[Reason, ...]) -> Any:
    reasons = reason if isinstance(reason, tuple) else (reason,)
    return pytest.param(name, content if callable(content) else lambda: content, reasons, id=number)


LINK = tar_entry("link", b"", type=tarfile.SYMTYPE, linkname="/")
ARTIFACTS = [
    row("77 pkl", "m.pkl", lambda: pickle.dumps(Planted()), UNSAFE),
    row("77 pt", "m.pt", PICKLES["a zip (torch)"], UNSAFE),
    row("77 joblib", "m.joblib", PICKLES["zlib (joblib)"], UNSAFE),
    row("77 npy of objects", "m.npy", PICKLES["an npy of objects"], UNSAFE),
    row("77 in an archive", "m.tgz", lambda: packed(".tgz", [("m.pkl", pickle.dumps(Planted()))]), UNSAFE),
    row("78 named onnx", "m.onnx", lambda: pickle.dumps(Planted()), UNSAFE),
    row("78 named safetensors", "m.safetensors", lambda: pickle.dumps(Planted(), 0), UNSAFE),
    row("78 zip behind a pickle", "m.skops", PICKLES["followed by a zip"], UNSAFE),
    row("78 in a zip", "m.skops", PICKLES["a zip with skops' schema beside it"], UNSAFE),
    row("78 in an npz", "m.npz", PICKLES["an npz of objects"], UNSAFE),
    row("79 unknown to scanners", "m", lambda: pickle.dumps(Planted(), 2), UNSAFE),
    row("80 a huge header", "m.safetensors", lambda: safetensors(2**62), UNSUPPORTED),
    row("80 metadata with a target", "m.safetensors", lambda: safetensors(42), UNSUPPORTED),
    row("81 keras", "m.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), UNSUPPORTED),
    row(
        "81 torchscript",
        "m.pt",
        lambda: zipped(("m/code/__torch__.py", b"", {}), ("m/data.pkl", b"\x80\x02.", {})),
        UNSAFE,
    ),
    row("81 a library", "m.so", b"\x7fELF" + bytes(50), UNSUPPORTED),
    row("81 an operator of a library", "m.onnx", custom_operator, (UNSAFE, Reason.LOAD_FAILED)),
    row("82 data above", "m.onnx", lambda: external("../../etc/passwd"), UNSAFE),
    row("82 data above on the way", "m.onnx", lambda: external("a/../../x"), UNSAFE),
    row("82 data elsewhere", "m.onnx", lambda: external("/etc/passwd"), UNSAFE),
    row("82 data beside it", "m.onnx", lambda: external("weights"), UNSAFE),
    row("82 data by a link", "m.tar", lambda: tar(LINK, tar_entry("m.onnx", external("link"))), ARCHIVE),
    row(
        "82 data by a hard link",
        "m.tar",
        lambda: tar(
            tar_entry("w", b"", type=tarfile.LNKTYPE, linkname="/etc/passwd"), tar_entry("m.onnx", external("w"))
        ),
        ARCHIVE,
    ),
    row("83 dots", "m.tar", lambda: tar(tar_entry("../escaped")), ARCHIVE),
    row("83 dots in a zip", "m.zip", lambda: zipped(("../escaped", b"", {})), ARCHIVE),
    row("83 absolute", "m.tar.gz", lambda: packed(".tar.gz", [("/escaped", b"")]), ARCHIVE),
    row("83 a drive", "m.zip", lambda: zipped(("C:\\escaped", b"", {})), ARCHIVE),
    row("83 a backslash", "m.zip", lambda: zipped(("a\\..\\..\\escaped", b"", {})), ARCHIVE),
    row("83 written through a link", "m.tar", lambda: tar(LINK, tar_entry("link/tmp/escaped")), ARCHIVE),
    row("83 a link in a zip", "m.zip", lambda: zipped(("a", b"/etc", unix_mode(stat.S_IFLNK))), ARCHIVE),
    row("83 a device", "m.tar", lambda: tar(tar_entry("a", b"", type=tarfile.CHRTYPE)), ARCHIVE),
    row("83 a pipe", "m.tar", lambda: tar(tar_entry("a", b"", type=tarfile.FIFOTYPE)), ARCHIVE),
    row("83 set-user-id", "m.tar", lambda: tar(tar_entry("a", mode=0o4755)), ARCHIVE),
    row("84 gzip", "m.tgz", lambda: packed(".tgz", [("a", bytes(30_000_000))]), ARCHIVE),
    row("84 zip", "m.zip", lambda: packed(".zip", [("a", bytes(30_000_000))]), ARCHIVE),
    row("84 zstd", "m.tar.zst", lambda: packed(".tar.zst", [("a", bytes(30_000_000))]), ARCHIVE),
    row("84 overlapping", "m.zip", lambda: overlapping_zip(20, 10_000_000), ARCHIVE),
    row("84 entries", "m.zip", lambda: packed(".zip", [(f"{number}/", b"") for number in range(10_001)]), ARCHIVE),
    row("84 a long path", "m.tar", lambda: packed(".tar", [("x/" * 5_000, b"")]), ARCHIVE),
    row("87 a web page", "m.onnx", b"<!DOCTYPE html><html>404</html>", UNSUPPORTED),
    row("87 a web page for an archive", "m.zip", b"<!DOCTYPE html><html>404</html>", ARCHIVE),
]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FileServer]:
    monkeypatch.chdir(tmp_path)
    with serving(FileServer(b"")) as running:
        yield running


def loaded(server: FileServer, tmp_path: Path, name: str, sha256: str = "", **storage: Any) -> LoadFailure:
    """Fetch and load what the server has, under that name; the refusal."""
    models = tmp_path / "models"
    model = ModelSettings("m", server.url.replace("digits.onnx", name), sha256 or server.sha256, local_files=True)

    def load() -> None:
        path = fetch(model, StorageSettings(**storage), models, lambda _seconds: None).path
        loading.load(path, "auto", "", 1, 2**30)

    with pytest.raises(LoadFailure) as refused:
        load()
    assert [path.name for path in tmp_path.iterdir()] in ([], ["models"]), "code ran, or wrote outside"
    assert not list(models.glob(".*")), "something unfinished was left behind"
    assert refused.value.reason is not ARCHIVE or not (models / "unpacked").exists(), "part of it was left behind"
    return refused.value


@pytest.mark.parametrize(("name", "content", "reasons"), ARTIFACTS)
def test_an_artifact_that_is_refused(
    server: FileServer, tmp_path: Path, name: str, content: Callable[[], bytes], reasons: tuple[Reason, ...]
) -> None:
    server.content = content()
    failure = loaded(server, tmp_path, name)
    assert failure.reason in reasons, failure.message


def test_84_what_is_unpacked_has_the_bound_of_a_model(server: FileServer, tmp_path: Path) -> None:
    server.content = packed(".tar", [(str(number), os.urandom(10_000)) for number in range(10)])
    assert loaded(server, tmp_path, "m.tar", max_bytes=150_000).reason is ARCHIVE


def test_85_another_digest(server: FileServer, tmp_path: Path) -> None:
    server.content = add_one()
    assert loaded(server, tmp_path, "m.onnx", SHA256).reason is DIGEST
    assert not list((tmp_path / "models").iterdir())


def test_85_cut_short(server: FileServer, tmp_path: Path) -> None:
    whole = add_one()
    server.content = whole[:-1]
    assert loaded(server, tmp_path, "m.onnx", FileServer(whole).sha256).reason is DIGEST
    assert not list((tmp_path / "models").iterdir())


def claims_much(server: FileServer, asked: Asked, handler: Handler) -> bool:
    handler.send_response(206)
    handler.send_header("content-range", f"bytes 0-8388607/{500 * 2**30}")
    handler.send_header("content-length", "8388608")
    handler.send_header("etag", server.etag)
    handler.end_headers()
    return True


def never_ends(_server: FileServer, asked: Asked, handler: Handler) -> bool:
    handler.send_response(200)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    while True:
        handler.wfile.write(b"%x\r\n%s\r\n" % (65536, bytes(65536)))
        asked.answered += 65536


def drips(_server: FileServer, asked: Asked, handler: Handler) -> bool:
    handler.send_response(200)
    handler.send_header("content-length", "1000000")
    handler.end_headers()
    for _ in range(60):
        handler.wfile.write(b"x")
        asked.answered += 1
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param(claims_much, "larger than", id="87 500 GiB"),
        pytest.param(never_ends, "larger than", id="87 never ending"),
        pytest.param(drips, "did not arrive within 1 s", id="87 a byte now and then"),
    ],
)
def test_too_much_or_too_slow(server: FileServer, tmp_path: Path, fault: Any, says: str) -> None:
    server.fault = fault
    failure = loaded(server, tmp_path, "m.onnx", SHA256, max_bytes=3_000_000, timeout_seconds=1)
    assert failure.reason is FETCH
    assert says in failure.message
    assert server.sent < 20_000_000
    assert not list((tmp_path / "models").iterdir())
