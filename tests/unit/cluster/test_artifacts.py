"""Image archives, kubeconfigs and certificates that are written without any other tool's help."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import ssl
import tarfile
from pathlib import Path

import pytest

from inflight_cluster import credentials, images, kubeconfig, oci, pki
from inflight_cluster.console import Console
from inflight_cluster.errors import ClusterError


def contents(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def test_an_archive_names_its_image_and_holds_what_its_digests_say(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    oci.write(archive, "docker.io/x/y:1", {"tool": b"\x7fELF"}, ["/tool"], "65532:65532")
    files = contents(archive)

    for name, blob in files.items():
        if name.startswith("blobs/"):
            assert hashlib.sha256(blob).hexdigest() == name.rsplit("/", 1)[-1]
    (described,) = json.loads(files["index.json"])["manifests"]
    assert described["annotations"]["org.opencontainers.image.ref.name"] == "docker.io/x/y:1"
    manifest = json.loads(files["blobs/" + described["digest"].replace(":", "/")])
    config = json.loads(files["blobs/" + manifest["config"]["digest"].replace(":", "/")])
    assert config["config"] == {"Entrypoint": ["/tool"], "User": "65532:65532", "WorkingDir": "/"}
    layer = files["blobs/" + manifest["layers"][0]["digest"].replace(":", "/")]
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert [(m.name, m.mode) for m in tar.getmembers()] == [("tool", 0o755)]


def test_the_same_files_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        oci.write(tmp_path / name, "x:1", {"tool": b"1", "other": b"2"}, ["/tool"], "0")
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_an_unknown_image_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="no image 'nginx'; there are: operator"):
        images.build(["nginx"], tmp_path, Console(quiet=True))


def test_a_kubeconfig_holds_everything_and_is_for_its_owner_only(tmp_path: Path) -> None:
    ca = tmp_path / "ca.crt"
    pair = pki.Pair(tmp_path / "c.crt", tmp_path / "c.key")
    for path in (ca, pair.certificate, pair.key):
        path.write_text(path.name)
    file = kubeconfig.write(tmp_path / "config", server="https://h:1", ca=ca, client=pair)
    config = json.loads(file.read_text())
    assert config["clusters"][0]["cluster"]["server"] == "https://h:1"
    assert base64.b64decode(config["users"][0]["user"]["client-key-data"]) == b"c.key"
    assert file.stat().st_mode & 0o077 == 0


def test_the_api_servers_certificate_is_trusted_for_its_address_and_its_service(tmp_path: Path) -> None:
    ca = credentials.control_plane(tmp_path, ["10.250.0.1"])
    decoded = ssl._ssl._test_decode_cert(str(tmp_path / "apiserver.crt"))  # type: ignore[attr-defined]
    names = {value for _, value in decoded["subjectAltName"]}
    assert {"10.250.0.1", "kubernetes.default.svc", "localhost"} <= names
    ssl.create_default_context(cafile=str(ca.certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "apiserver.crt", tmp_path / "apiserver.key")  # they belong together
    assert (tmp_path / "apiserver.key").stat().st_mode & 0o077 == 0


def test_a_step_is_told_with_its_time_also_when_it_fails() -> None:
    out = io.StringIO()
    with pytest.raises(ValueError, match="no"), Console(out).step("a thing"):
        raise ValueError("no")
    with Console(out).step("another"):
        pass
    first, second = out.getvalue().splitlines()
    assert first.startswith("  failed  a thing after 0.0 s")
    assert second == "    0.0 s another"
