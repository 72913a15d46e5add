"""The API as a whole: explained field by field, bounded everywhere, and readable in kubectl's columns."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from modeldeployments import DEFINITION, RESOURCE, Api, Object, minimal

MAX_SPEC_BYTES = 120 * 1024
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


def fields(schema: Object, path: str = "") -> Iterator[tuple[str, Object]]:
    """Every field of a schema with its path, and so every line of kubectl explain."""
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from fields(field, f"{path}.{name}".lstrip("."))
    for kind in ("items", "additionalProperties"):
        if kind in schema:
            yield from fields(schema[kind], f"{path}[]")


@pytest.fixture(scope="module")
def schema(api: Api) -> Any:
    """What the API server publishes, a moment after the definition is there: kubectl explain prints this."""
    deadline = time.monotonic() + 30
    while (answer := api.http.get("/openapi/v3/apis/serving.inflight.dev/v1alpha1")).status_code != 200:
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    return answer.json()["components"]["schemas"]["dev.inflight.serving.v1alpha1.ModelDeployment"]


def test_kubectl_explain_has_words_for_every_field(schema: Object) -> None:
    silent = [path for path, field in fields(schema) if not (field.get("description") or "allOf" in field)]
    assert not silent


def test_every_default_is_told_in_the_description(schema: Object) -> None:
    defaults = {path: field for path, field in fields(schema) if isinstance(field.get("default"), int | str)}
    assert len(defaults) >= 7
    assert not [path for path, field in defaults.items() if f"Default: {field['default']}" not in field["description"]]


def written(part: str) -> list[tuple[str, Object]]:
    versions = yaml.safe_load(DEFINITION.read_text())["spec"]["versions"]
    return list(fields(versions[0]["schema"]["openAPIV3Schema"]["properties"][part], part))


def test_everything_a_user_writes_is_bounded() -> None:
    limits = {
        "string": ("maxLength", "enum"),
        "array": ("maxItems",),
        "integer": ("maximum",),
        "object": ("properties", "maxProperties"),
        "boolean": ("type",),
    }
    unbounded = [
        path
        for path, field in written("spec")
        if not any(limit in field for limit in limits[field.get("type", "string")])
    ]
    assert not unbounded


def test_there_is_no_float_and_no_field_that_takes_anything() -> None:
    for path, field in written("spec") + written("status"):
        assert field.get("type") != "number", path
        assert "x-kubernetes-preserve-unknown-fields" not in field, path


def test_every_list_says_how_it_merges() -> None:
    lists = [(path, field) for path, field in written("spec") + written("status") if field.get("type") == "array"]
    assert lists
    assert not [path for path, field in lists if "x-kubernetes-list-type" not in field]


def test_the_largest_spec_stays_below_120_kib(api: Api) -> None:
    """kubectl apply keeps a second copy in an annotation, and all annotations together may have 256 KiB."""
    resource = {**minimal(), "spec": largest_spec()}
    answer = api.create(resource)
    assert answer.status_code == 201, answer.json()["message"]
    stored = len(json.dumps(answer.json()["spec"], separators=(",", ":")))
    assert 64 * 1024 < stored < MAX_SPEC_BYTES


def largest_spec() -> Object:
    """Every list, map and string as long as it may be, in the costliest way that 64 entries can be spent."""
    key = f"{'d' * 63}/{'n' * 63}"
    quantities = {f"{'d' * 62}{i}/{'n' * 63}": "1" * 32 for i in range(4)}
    server = {
        "concurrency": 64,
        "maxQueue": 1000,
        "timeoutMilliseconds": 600000,
        "isolation": "process",
        "batching": {"maxRows": 4096, "maxDelayMilliseconds": 10000},
        "cache": {"maxMegabytes": 65536, "ttlSeconds": 86400},
        "image": "i" * 256,
        "serviceAccountName": "a" * 253,
        "resources": {"requests": quantities, "limits": quantities},
    }
    model = {
        "uri": "s3://models/" + "u" * 2036,
        "sha256": "0" * 64,
        "format": "python",
        "entrypoint": f"{'m' * 63}:{'C' * 64}",
        "storage": {
            "endpoint": "https://" + "e" * 248,
            "region": "r" * 63,
            "secretRef": {"name": "s" * 253},
        },
    }

    def variables(count: int) -> list[Object]:
        return [{"name": f"{'V' * 61}{i:02}", "value": "v" * 512} for i in range(count)]

    term = {
        "topologyKey": key,
        "labelSelector": {
            "matchLabels": {f"{'d' * 63}/{'n' * 62}{i}": "l" * 63 for i in range(4)},
            "matchExpressions": [{"key": key, "operator": "NotIn", "values": ["l" * 63] * 4}] * 2,
        },
    }
    terms = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term] * 4}}
    variants: list[dict[str, Any]] = [
        {"name": f"{'v' * 29}{i}", "weight": 10, "model": model, "server": dict(server)} for i in range(10)
    ]
    variants[0]["server"]["podTemplate"] = {"env": variables(32)}
    return {
        "variants": variants,
        "server": {**server, "podTemplate": {"env": variables(16), "affinity": terms}},
        "autoscaling": {"minReplicas": 1000, "maxReplicas": 1000, "targetInFlight": 1000},
        "traffic": {
            "access": {
                "serviceAccounts": [f"{'n' * 63}/{'a' * 251}{i:02}" for i in range(32)],
                "jwt": {
                    "issuer": "i" * 256,
                    "audiences": ["a" * 255 + str(i) for i in range(8)],
                    "jwks": '{"keys":' + "k" * 16376,
                },
            }
        },
        "revisionHistoryLimit": 10,
    }


STATUS = {
    "observedGeneration": 1,
    "url": "http://digits.demo.svc",
    "conditions": [
        {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "In words.",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        }
        for kind, status, reason in [("Ready", "True", "Complete"), ("Progressing", "False", "Complete")]
    ],
    "variants": [
        {
            "name": "stable",
            "revision": "0123abcd",
            "targetRevision": "4567cdef",
            "replicas": 3,
            "readyReplicas": 3,
            "weight": 95,
            "effectiveWeight": 95,
            "inFlight": "2700m",
            "message": "FetchFailed: in words",
        }
    ],
    "summary": {"variants": "stable 95 · candidate 5", "replicas": "3/3", "inFlight": "2.7"},
}


def test_kubectl_get_shows_what_the_status_says(api: Api) -> None:
    resource = minimal("columns")
    address = f"{RESOURCE.format('default')}/columns"
    assert api.create(resource, dry=False).status_code == 201
    merge = {"Content-Type": "application/merge-patch+json"}
    written = api.http.patch(f"{address}/status", content=json.dumps({"status": STATUS}), headers=merge)
    assert written.json()["status"] == STATUS
    table = api.http.get(address, headers=TABLE).json()
    names = [column["name"] for column in table["columnDefinitions"]]
    cells = dict(zip(names, table["rows"][0]["cells"], strict=True))
    assert cells.pop("Age")
    assert cells == {
        "Name": "columns",
        "Ready": "True",
        "URL": "http://digits.demo.svc",
        "Variants": "stable 95 · candidate 5",
        "Replicas": "3/3",
        "In-Flight": "2.7",
        "Rollout": "Complete",
    }


def test_status_is_written_through_its_own_door_only(api: Api) -> None:
    created = api.create({**minimal("door"), "status": STATUS}, dry=False).json()
    assert "status" not in created
    address = f"{RESOURCE.format('default')}/door/status"
    merge = {"Content-Type": "application/merge-patch+json"}
    patch = {"status": STATUS, "spec": {"revisionHistoryLimit": 7}}
    after = api.http.patch(address, content=json.dumps(patch), headers=merge).json()
    assert after["spec"] == created["spec"]
    assert after["metadata"]["generation"] == created["metadata"]["generation"]
