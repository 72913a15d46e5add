"""Settings are read in one place and refused with the name of the variable that is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_server import settings
from model_server.errors import LoadFailure, Reason

MINIMAL = {"INFLIGHT_MODEL_NAME": "digits", "INFLIGHT_MODEL_URI": "s3://models/digits/1"}


def test_a_model_is_all_that_has_to_be_set() -> None:
    read = settings.read(MINIMAL)
    assert (read.model.name, read.model.uri, read.model.format) == ("digits", "s3://models/digits/1", "auto")
    assert (read.concurrency, read.max_queue, read.timeout_milliseconds) == (1, 8, 10_000)
    assert (read.port, read.metrics_port, read.drain_delay_seconds) == (8080, 9090, 5)
    assert read.model_dir is None


def test_everything_the_operator_sets_is_read() -> None:
    read = settings.read(
        MINIMAL
        | {
            "INFLIGHT_MODEL_SHA256": "AB" * 32,
            "INFLIGHT_MODEL_FORMAT": "python",
            "INFLIGHT_MODEL_ENTRYPOINT": "pkg.mod:Class",
            "INFLIGHT_STORAGE_ENDPOINT": "http://store:9000",
            "INFLIGHT_STORAGE_REGION": "eu-north-1",
            "INFLIGHT_STORAGE_SECRET_DIR": "/etc/inflight/storage",
            "INFLIGHT_CONCURRENCY": "4",
            "INFLIGHT_MAX_QUEUE": "0",
            "INFLIGHT_TIMEOUT_MILLISECONDS": "250",
            "INFLIGHT_CACHE_MAX_MEGABYTES": "64",
            "INFLIGHT_CACHE_TTL_SECONDS": "5",
            "INFLIGHT_CACHE_URL": "rediss://me:secret@store:6380/2",
            "INFLIGHT_MODEL_DIR": "/models",
            "INFLIGHT_DRAIN_DELAY_SECONDS": "0",
            "INFLIGHT_TERMINATION_LOG": "/dev/termination-log",
            "INFLIGHT_VARIANT": "stable",
            "INFLIGHT_REVISION": "digits-stable-12345678",
        }
    )
    assert read.model.sha256 == "ab" * 32
    assert (read.model.format, read.model.entrypoint) == ("python", "pkg.mod:Class")
    assert (read.storage.endpoint, read.storage.region) == ("http://store:9000", "eu-north-1")
    assert read.storage.secret_dir == Path("/etc/inflight/storage")
    assert (read.concurrency, read.max_queue, read.timeout_milliseconds) == (4, 0, 250)
    assert (read.cache_max_megabytes, read.cache_ttl_seconds) == (64, 5)
    assert read.cache_url == "rediss://me:secret@store:6380/2"
    assert (read.model_dir, read.termination_log) == (Path("/models"), Path("/dev/termination-log"))
    assert (read.variant, read.revision, read.drain_delay_seconds) == ("stable", "digits-stable-12345678", 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("MODEL_NAME", "a/b", id="a slash would be another path"),
        pytest.param("MODEL_NAME", "", id="no name"),
        pytest.param("MODEL_SHA256", "abc", id="half a digest"),
        pytest.param("MODEL_FORMAT", "pickle", id="a format there is not"),
        pytest.param("MODEL_ENTRYPOINT", "os.system", id="an entrypoint without a class"),
        pytest.param("CONCURRENCY", "0", id="no slot at all"),
        pytest.param("CONCURRENCY", "65", id="more slots than are allowed"),
        pytest.param("MAX_QUEUE", "-1", id="a negative queue"),
        pytest.param("TIMEOUT_MILLISECONDS", "1.5", id="a fraction"),
        pytest.param("TIMEOUT_MILLISECONDS", "9" * 400, id="a number of 400 digits"),
        pytest.param("CACHE_MAX_MEGABYTES", "-1", id="less than no memory"),
        pytest.param("CACHE_TTL_SECONDS", "0", id="answers that are kept no time"),
        pytest.param("CACHE_URL", "http://store:6379", id="a store of another kind"),
        pytest.param("CACHE_URL", "redis://", id="a store without a name"),
        pytest.param("CACHE_URL", "redis://store/0?ssl_cert_reqs=none", id="options of the client"),
        pytest.param("CACHE_URL", "redis://store", id="a shared cache without one of its own"),
        pytest.param("PORT", "http", id="a word for a port"),
        pytest.param("METRICS_PORT", "70000", id="a port there is not"),
        pytest.param("DRAIN_DELAY_SECONDS", "5s", id="a unit"),
        pytest.param("LOG_LEVEL", "loud", id="a log level there is not"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_variable(name: str, value: str) -> None:
    with pytest.raises(LoadFailure) as refused:
        settings.read(MINIMAL | {f"INFLIGHT_{name}": value})
    assert refused.value.reason is Reason.INVALID_SETTINGS
    assert f"INFLIGHT_{name}" in refused.value.message
    assert len(refused.value.message) < 500


def test_the_password_of_a_shared_cache_is_not_told() -> None:
    with pytest.raises(LoadFailure) as refused:
        settings.read(MINIMAL | {"INFLIGHT_CACHE_URL": "redis://:secret@store:6379"})
    assert "secret" not in refused.value.message


def test_without_a_model_it_says_how_to_name_one() -> None:
    with pytest.raises(LoadFailure, match="--model NAME=URI"):
        settings.read({})


@pytest.mark.parametrize(
    ("environ", "schemes"),
    [
        pytest.param({}, set(), id="nothing"),
        pytest.param({"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}, {"s3"}, id="a service account's identity at AWS"),
        pytest.param({"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://169.254.170.23/v1"}, {"s3"}, id="a pod identity"),
        pytest.param({"AWS_REGION": "eu-north-1"}, set(), id="a region is no identity"),
        pytest.param({"AZURE_FEDERATED_TOKEN_FILE": "/token"}, {"az"}, id="a service account's identity at Azure"),
        pytest.param({"INFLIGHT_STORAGE_IDENTITY": "metadata"}, {"gs"}, id="the operator says so, for Google"),
        pytest.param({"GOOGLE_APPLICATION_CREDENTIALS": "/key.json"}, {"gs"}, id="a developer's at Google"),
    ],
)
def test_requests_are_signed_where_the_environment_has_an_identity(environ: dict[str, str], schemes: set[str]) -> None:
    assert settings.read(MINIMAL | environ).storage.identities == schemes


def test_another_kind_of_identity_is_refused() -> None:
    with pytest.raises(LoadFailure, match="INFLIGHT_STORAGE_IDENTITY must be metadata, or not set, not 'node'"):
        settings.read(MINIMAL | {"INFLIGHT_STORAGE_IDENTITY": "node"})


def test_no_variable_opens_the_pods_own_files_to_a_model_uri() -> None:
    assert not settings.read(MINIMAL | {"INFLIGHT_LOCAL_FILES": "1"}).model.local_files
    assert settings.read(MINIMAL, local_files=True).model.local_files
