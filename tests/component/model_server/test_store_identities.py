"""As whom stores are asked, and where else anything is sent: nowhere that the identity at hand doesn't need.

The clouds' own token services can't be had here; this one server on loopback stands for all of them, and for the
store. What is tested is what each is asked, and that its token reaches the store.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

import object_stores
from model_server import settings
from model_server.errors import LoadFailure
from model_server.settings import StorageSettings
from model_server.storage import addresses, connections
from model_server.storage.fetching import Fetched, fetch
from model_server.storage.stores import opened
from model_server.storage.uri import parse
from model_store import Asked, FileServer, Handler, certificate, send, serving

TOKENS = "here-is-a-projected-token"
URIS = {"s3": "s3://models/m", "gs": "gs://models/m", "az": "az://account/models/m"}


class Cloud(FileServer):
    """A store with one object, and the token services of three clouds. It writes down what it is asked."""

    def __init__(self) -> None:
        super().__init__(b"abc")
        self.asked: list[tuple[str, dict[str, str], str]] = []
        self.redirect = ""
        self.refuses_signed_urls = False

    def answer(self, handler: Handler) -> None:
        headers = {name.lower(): value for name, value in handler.headers.items()}
        body = handler.rfile.read(int(headers.get("content-length", 0))).decode()
        self.asked.append((handler.path, headers, body))
        if (answer := self._token(handler.path, body)) is not None:
            send(handler, 200, answer.encode())
        elif self.refuses_signed_urls and "X-Amz-Signature" in handler.path:
            send(handler, 403)
        elif self.redirect:
            send(handler, 307, location=self.redirect)
        else:
            self.serve(Asked(None, headers), handler, last_modified="Thu, 26 Nov 2026 10:00:00 GMT")

    def _token(self, path: str, body: str) -> str | None:
        until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
        keys = {"AccessKeyId": "KEY", "SecretAccessKey": "s", "Expiration": until}
        if "AssumeRoleWithWebIdentity" in body + path:
            inner = "".join(f"<{name}>{value}</{name}>" for name, value in (keys | {"SessionToken": "t"}).items())
            name = "AssumeRoleWithWebIdentity"
            return f"<{name}Response><{name}Result><Credentials>{inner}</Credentials></{name}Result></{name}Response>"
        if path.startswith("/pod-identity"):
            return json.dumps(keys | {"Token": "t"})
        if "oauth2" in path or "computeMetadata" in path:
            return json.dumps({"access_token": "KEY", "expires_in": 3600, "token_type": "Bearer"})
        return None

    @property
    def identities(self) -> set[str]:
        """What the store was told of who asks, in a header; token services and signed URLs left out."""
        return {headers.get("authorization", "") for path, headers, body in self.asked if path.endswith("/m")}

    @property
    def signed(self) -> list[dict[str, list[str]]]:
        """What the store was told in signed URLs."""
        urls = [urlsplit(path) for path, _, _ in self.asked]
        return [parse_qs(url.query) for url in urls if url.path.endswith("/m") and url.query]


@pytest.fixture
def tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    made = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(made[0]))
    connections._tls_context.cache_clear()
    return made


@pytest.fixture
def cloud(tls: tuple[Path, Path]) -> Iterator[Cloud]:
    """Over https, as token services are."""
    with serving(Cloud(), tls) as running:
        assert isinstance(running, Cloud)
        running.url = running.url.removesuffix("/models/digits.onnx")
        yield running


@pytest.fixture(autouse=True)
def loopback_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test's cloud is on this machine; and this machine has no identity of its own."""
    monkeypatch.setattr(addresses, "forbidden", lambda _address: False)
    for name in tuple(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "GCE_")):
            monkeypatch.delenv(name)


def fetched(scheme: str, endpoint: str, directory: Path, monkeypatch: pytest.MonkeyPatch, **environ: str) -> Fetched:
    """As a pod with these variables would."""
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    ours = {"INFLIGHT_MODEL_NAME": "m", "INFLIGHT_MODEL_URI": URIS[scheme], "INFLIGHT_STORAGE_ENDPOINT": endpoint}
    read = settings.read(ours | environ)
    return fetch(read.model, read.storage, directory / "models", lambda _seconds: None)


def token_file(directory: Path) -> str:
    (directory / "token").write_text(TOKENS)
    return str(directory / "token")


def require_keys(cloud: Cloud) -> None:
    """The store is asked with the keys that came for the token, in a header and, for the object, in a URL."""
    assert all(identity.startswith("AWS4-HMAC-SHA256 Credential=KEY/") for identity in cloud.identities)
    assert len(cloud.signed) == 1
    assert cloud.signed[0]["X-Amz-Credential"][0].startswith("KEY/")
    assert cloud.signed[0]["X-Amz-Security-Token"] == ["t"]


@pytest.mark.parametrize("scheme", URIS)
def test_without_an_identity_nobody_is_asked_for_one_and_requests_are_unsigned(
    scheme: str, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fetched(scheme, cloud.url, tmp_path, monkeypatch).path.read_bytes() == b"abc"
    assert cloud.identities == {""}
    assert all(path.endswith("/m") for path, _, _ in cloud.asked)


def test_a_service_account_at_aws_changes_its_token_for_keys(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"AWS_WEB_IDENTITY_TOKEN_FILE": token_file(tmp_path), "AWS_ROLE_ARN": "arn:aws:iam::1:role/reader"}
    fetched("s3", cloud.url, tmp_path, monkeypatch, **environ, AWS_ENDPOINT_URL_STS=cloud.url)
    assert TOKENS in str(cloud.asked[0])
    require_keys(cloud)


def test_a_pod_identity_at_aws_is_asked_for_keys(cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Cloud()) as agent:  # on the node, over http
        environ = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": agent.url.replace("/models/digits.onnx", "/pod-identity")}
        token = token_file(tmp_path)
        fetched("s3", cloud.url, tmp_path, monkeypatch, **environ, AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=token)
        assert isinstance(agent, Cloud)
        assert [headers["authorization"] for _, headers, _ in agent.asked] == [TOKENS]
    require_keys(cloud)


def test_a_service_account_at_azure_changes_its_token_for_one_of_the_store(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {"AZURE_CLIENT_ID": "client", "AZURE_TENANT_ID": "tenant", "AZURE_AUTHORITY_HOST": cloud.url}
    fetched("az", cloud.url, tmp_path, monkeypatch, **environ, AZURE_FEDERATED_TOKEN_FILE=token_file(tmp_path))
    path, _, body = cloud.asked[0]
    assert path == "/tenant/oauth2/v2.0/token"
    assert TOKENS in body
    assert cloud.identities == {"Bearer KEY"}


def test_a_service_account_at_google_is_asked_for_at_the_metadata_service(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Cloud()) as metadata:  # over http, though nothing else may be
        monkeypatch.setenv("GCE_METADATA_HOST", metadata.url.split("/")[2])
        fetched("gs", cloud.url, tmp_path, monkeypatch, INFLIGHT_STORAGE_IDENTITY="metadata")
        assert isinstance(metadata, Cloud)
        assert {headers.get("metadata-flavor") for _, headers, _ in metadata.asked} == {"Google"}
    assert cloud.identities == {"Bearer KEY"}


@pytest.fixture
def keys(tmp_path: Path) -> dict[str, str]:
    """Of a storage Secret, for S3."""
    return {"INFLIGHT_STORAGE_SECRET_DIR": str(object_stores.secret_dir(tmp_path / "secret", object_stores.S3_KEYS))}


def test_a_bucket_that_refuses_signed_urls_is_asked_with_a_header(
    cloud: Cloud, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.refuses_signed_urls = True
    assert fetched("s3", cloud.url, tmp_path, monkeypatch, **keys).path.read_bytes() == b"abc"
    assert len(cloud.signed) == 1
    assert [path for path, _, _ in cloud.asked][-1] == "/models/m"


def test_where_a_proxy_leads_out_objects_are_read_by_who_knows_of_proxies(
    keys: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = StorageSettings(endpoint="https://store.invalid", secret_dir=Path(*keys.values()))
    uri = parse(URIS["s3"], sha256="", local_files=False)
    assert opened(uri, storage, local_files=True).sign is not None
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.invalid:3128")
    assert opened(uri, storage, local_files=True).sign is None


def test_a_signed_url_is_not_followed_to_a_place_that_is_refused(
    cloud: Cloud, keys: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(FileServer(b"metadata")) as inside:
        real = cloud.serve
        cloud.serve = lambda asked, handler, **more: (  # type: ignore[method-assign]
            send(handler, 307, location=inside.url) if handler.command == "GET" else real(asked, handler, **more)
        )
        with pytest.raises(LoadFailure):
            fetched("s3", cloud.url, tmp_path, monkeypatch, **keys)
        assert cloud.signed
        assert inside.requests == []


# Redirects: obstore follows them by itself ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", URIS)
def test_no_redirect_leads_from_https_to_http(
    scheme: str, cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(FileServer(b"metadata")) as inside:
        cloud.redirect = inside.url
        with pytest.raises(LoadFailure):
            fetched(scheme, cloud.url, tmp_path, monkeypatch)
        assert cloud.asked
        assert inside.requests == []


@pytest.mark.parametrize("scheme", URIS)
def test_no_redirect_leads_from_http_to_another_host(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Cloud()) as store, serving(FileServer(b"metadata")) as inside:
        assert isinstance(store, Cloud)
        endpoint = store.url.removesuffix("/models/digits.onnx")
        assert fetched(scheme, endpoint, tmp_path, monkeypatch).path.read_bytes() == b"abc"
        store.redirect, store.asked = inside.url.replace("127.0.0.1", "localhost"), []
        began = time.monotonic()
        with pytest.raises(LoadFailure):
            fetched(scheme, endpoint, tmp_path / "again", monkeypatch)
        assert time.monotonic() - began < 5
        assert store.asked
        assert inside.requests == []


def test_a_certificate_that_nobody_vouches_for_is_not_accepted(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(LoadFailure, match="failed 4 times"):
        fetched("s3", cloud.url, tmp_path, monkeypatch)
    assert cloud.asked == []
