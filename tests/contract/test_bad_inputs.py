"""The catalogue of bad ModelDeployments: 45 kinds of mistake or attack, each with the tests that refuse it, or with the
reason why it can't be made here.

Most rows are in test_crd_validation.py; those that its tables lack are here. Every proof is looked up by its id, so the
catalogue can't name a test that is gone. What the model server refuses while it fetches is proved beside it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from modeldeployments import RESOURCE, Api, Object, edited, minimal

ROOT = Path(__file__).parents[2]
POD = "spec.server.podTemplate"
STORED = RESOURCE.format("default")


def volume(**kind: Any) -> Object:
    return edited(POD, {"volumes": [{"name": "data", **kind}]})


REFERENCES = [
    pytest.param(volume(configMap={"name": "other/a"}), f"{POD}.volumes[0].configMap.name", id="config-map"),
    pytest.param(
        volume(persistentVolumeClaim={"claimName": "other/a"}),
        f"{POD}.volumes[0].persistentVolumeClaim.claimName",
        id="claim",
    ),
    pytest.param(
        edited(f"{POD}.imagePullSecrets", [{"name": "other/a"}]), f"{POD}.imagePullSecrets[0].name", id="pull"
    ),
]


@pytest.mark.parametrize(("resource", "field"), REFERENCES)
def test_a_reference_into_another_namespace_is_refused(api: Api, resource: Object, field: str) -> None:
    answer = api.create(resource)
    assert answer.status_code == 422, answer.text
    (cause,) = answer.json()["details"]["causes"]
    assert cause["field"] == field
    assert "in this namespace" in cause["message"]


UNKNOWN = [
    pytest.param(f"{POD}.{field}", value, id=f"pod-{field}")
    for field, value in {
        "hostPID": True,
        "hostIPC": True,
        "shareProcessNamespace": True,
        "hostAliases": [],
        "containers": [],
        "initContainers": [],
        "serviceAccountName": "admin",
        "runtimeClassName": "a",
        "priorityClassName": "system-node-critical",
    }.items()
] + [
    pytest.param("spec.server.ports", [{"containerPort": 80, "hostPort": 80}], id="host-port"),
    pytest.param("spec.server.securityContext", {"privileged": True}, id="privileged"),
    pytest.param("spec.server.command", ["/bin/sh"], id="command"),
    pytest.param("spec.server.port", 9901, id="port"),
    pytest.param("spec.traffic.headers", [{"name": "x-envoy-retry-on", "value": "a\r\nb"}], id="header"),
    pytest.param("spec.variants.0.allowPickle", True, id="allow-pickle"),
]


@pytest.mark.parametrize(("field", "value"), UNKNOWN)
def test_what_can_not_be_asked_for_is_an_unknown_field(api: Api, field: str, value: Any) -> None:
    """Where such a field is added, its own rows of mistakes come with it."""
    answer = api.create(edited(field, value))
    assert answer.status_code == 400, answer.text
    told = field.replace(".0.", "[0].")
    assert any(f'unknown field "{part}"' in answer.json()["message"] for part in (told, told.rpartition(".")[0]))


def test_a_client_that_does_not_ask_strictly_is_warned_and_the_unknown_field_dropped(api: Api) -> None:
    answer = api.http.post(STORED, json=edited("spec.replcias", 3), params={"dryRun": "All"})
    assert answer.status_code == 201
    assert r"unknown field \"spec.replcias\"" in answer.headers["warning"]
    assert "replcias" not in answer.json()["spec"]


NEGATIVE = [
    pytest.param("spec.autoscaling.targetInFlight", -1, id="target-negative"),
    pytest.param("spec.server.timeoutMilliseconds", -1, id="timeout-negative"),
    pytest.param("spec.server.concurrency", -1, id="concurrency-negative"),
    pytest.param("spec.autoscaling.maxReplicas", -1, id="max-negative"),
]


@pytest.mark.parametrize(("field", "value"), NEGATIVE)
def test_less_than_nothing_is_refused(api: Api, field: str, value: int) -> None:
    answer = api.create(edited(field, value))
    assert answer.status_code == 422, answer.text
    assert field in [cause["field"] for cause in answer.json()["details"]["causes"]]


NODE_TERMS = f"{POD}.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms"
POD_TERMS = f"{POD}.affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution"


def on_nodes(**expression: Any) -> Object:
    return edited(NODE_TERMS, [{"matchExpressions": [{"key": "zone", **expression}]}])


def on_pods(**expression: Any) -> Object:
    return edited(
        POD_TERMS, [{"topologyKey": "a", "labelSelector": {"matchExpressions": [{"key": "a", **expression}]}}]
    )


SPREAD = {"maxSkew": 1, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}
DEPLOYMENTS = [
    pytest.param(on_nodes(operator="In"), "values", "the others need some", id="in-nothing"),
    pytest.param(on_nodes(operator="NotIn", values=[]), "values", "the others need some", id="not-in-nothing"),
    pytest.param(on_nodes(operator="Exists", values=["a"]), "values", "have no values", id="exists-with-values"),
    pytest.param(on_nodes(operator="Gt", values=["1", "2"]), "values", "exactly one value", id="more-than-two-values"),
    pytest.param(on_pods(operator="In"), "values", "the others need some", id="pods-in-nothing"),
    pytest.param(on_pods(operator="DoesNotExist", values=["a"]), "values", "have no values", id="pods-without-values"),
    pytest.param(
        edited(f"{POD}.topologySpreadConstraints", [SPREAD, {**SPREAD, "maxSkew": 2}]),
        f"{POD}.topologySpreadConstraints[1]",
        "Duplicate value",
        id="spread-twice",
    ),
    pytest.param(
        edited(f"{POD}.volumes", [{"name": "digest", "emptyDir": {}}]), "volumes[0].name", "are taken", id="our-volume"
    ),
]


@pytest.mark.parametrize(("resource", "field", "words"), DEPLOYMENTS)
def test_what_a_deployment_would_not_take_is_refused_already_here(
    api: Api, resource: Object, field: str, words: str
) -> None:
    answer = api.create(resource)
    assert answer.status_code == 422, answer.text
    (cause,) = answer.json()["details"]["causes"]
    assert cause["field"].endswith(field)
    assert words in cause["message"]


def raw(api: Api, body: bytes, where: str = STORED) -> httpx.Response:
    query = {"fieldValidation": "Strict", "dryRun": "All"}
    return api.http.post(where, content=body, params=query, headers={"content-type": "application/json"})


def test_an_object_that_nobody_could_store_is_refused(api: Api) -> None:
    big = edited("metadata.annotations", {"a": "a" * 2**18})
    answer = api.create(big)
    assert answer.status_code == 422
    assert "262144 bytes" in answer.json()["message"]
    assert raw(api, json.dumps(minimal()).encode() + b" " * 2**22).status_code == 413


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(b'{"spec": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400, id="nested-without-end"),
        pytest.param(json.dumps(minimal()).encode().replace(b"stable", b"st\xffble"), 422, id="not-utf-8"),
        pytest.param(json.dumps(minimal()).encode()[:-1], 400, id="cut-off"),
        pytest.param(b"\x80\x04}.", 400, id="a-pickle"),
    ],
)
def test_a_body_that_is_no_object_is_refused(api: Api, body: bytes, status: int) -> None:
    assert raw(api, body).status_code == status


def test_a_version_that_does_not_exist_is_refused(api: Api) -> None:
    assert raw(api, json.dumps(minimal()).encode(), STORED.replace("v1alpha1", "v9")).status_code == 404
    answer = api.create({**minimal(), "apiVersion": "serving.inflight.dev/v9"})
    assert answer.status_code == 400
    assert 'in version "v9" cannot be handled' in answer.json()["message"]


def test_a_status_that_a_user_brings_along_is_not_taken(api: Api) -> None:
    answer = api.create({**minimal(), "status": {"url": "http://evil.example", "observedGeneration": 9}})
    assert answer.status_code == 201
    assert "status" not in answer.json()


HERE = ("tests/contract/test_crd_validation.py", "tests/contract/test_bad_inputs.py")
SERVER = "tests/unit/model_server/test_storage.py"
FETCH = "tests/unit/model_server/test_http_source.py"
SOURCES = "tests/component/model_server/test_refused_sources.py"
STORES = "tests/component/model_server/test_store_identities.py"

CATALOGUE: dict[str, tuple[str, ...] | str] = {
    "1 no model": ("no-spec", "no-variants", "empty-variants", "no-model", "no-uri"),
    "2 unknown field": (
        "typing-error",
        "test_a_client_that_does_not_ask_strictly_is_warned_and_the_unknown_field_dropped",
    ),
    "3 negative replicas": ("min-negative", "max-negative"),
    "4 absurd replicas": ("max-absurd",),
    "5 minimum over maximum": ("min-over-max", "min-over-default-max"),
    "6 maximum of nothing": ("max-zero",),
    "7 weights that are not 100": ("weights-too-many", "weights-too-few", "weight-missing", "alone-with-half"),
    "8 weights that are no percentage": ("weight-negative", "weight-over-100", "weight-fraction", "weight-text"),
    "9 a name twice": ("same-name-twice", "env-twice"),
    "10 too many variants": ("eleven-variants",),
    "11 a weight for nothing": "a weight is a field of its variant, so there is nothing else to name",
    "12 a name too long for its children": ("name-too-long", "variant-name-too-long"),
    "13 a name that is no DNS label": ("name-with-a-dot", "name-that-starts-with-a-digit", "variant-in-capitals"),
    "14 an image with shell in it": ("image-", "image-server; reboot", r"image-server\n", "uri-image-shell"),
    "15 an image without digest": "allowed: a tag is the user's choice; who forbids it does so for every pod",
    "16 a foreign registry": "the cluster's own admission policy sees the pods as it sees all others",
    "17 quantities": (
        "cpu-text", "memory-negative", "cpu-negative-number", "request-over-limit", "request-over-limit-as-numbers",
    ),
    "18 no memory limit": "none is made up: the namespace's LimitRange gives the default where there is to be one",
    "19 ports": ("port", "host-port"),
    "20 timeouts": (
        "timeoutMilliseconds-0", "timeoutMilliseconds-600001", "timeoutMilliseconds-2s", "timeout-negative",
    ),
    "21 queues and workers": (
        "maxQueue--1", "maxQueue-1001", "concurrency-0", "concurrency-65", "concurrency-negative",
        "variant-override-out-of-range",
    ),
    "22 a target of nothing": ("target-zero", "target-negative"),
    "23 files of the pod": ("uri-file", "uri-path", "uri-ftp"),
    "24 not encrypted": ("http-without-sha256", f"{SERVER}::test_plain_http_needs_a_digest"),
    "25 addresses of the machine or the cloud": (
        "uri-loopback", "uri-loopback-short", "uri-loopback-decimal", "uri-loopback-hexadecimal", "uri-loopback-octal",
        "uri-loopback-ipv6", "uri-loopback-mapped", "uri-loopback-nat64", "uri-localhost", "uri-unspecified",
        "uri-link-local", "uri-link-local-decimal", "uri-link-local-mapped", "uri-metadata-ipv6", "uri-metadata-name",
        "endpoint-link-local", "endpoint-loopback-decimal", "endpoint-localhost", "keys-at-home", "keys-at-home-in-hex",
        "keys-of-the-machine",
        f"{SERVER}::test_addresses_of_this_machine_and_of_metadata_services_are_forbidden",
        f"{SOURCES}::test_nothing_is_sent_to_this_machine_or_a_metadata_service",
    ),
    "26 a host that resolves to one of them": (
        f"{SERVER}::test_a_host_is_judged_by_what_it_resolves_to",
        f"{SERVER}::test_one_forbidden_address_among_good_ones_is_enough",
        f"{SOURCES}::test_26_a_name_that_means_another_address_later_is_connected_to_only_where_it_was_vetted",
    ),
    "27 a redirect to one of them": (
        f"{FETCH}::test_a_redirect_is_held_to_the_same_rules",
        f"{FETCH}::test_a_redirect_to_a_forbidden_address_is_not_connected_to",
        f"{FETCH}::test_redirects_are_followed_without_taking_anything_along",
        f"{FETCH}::test_more_than_three_redirects_are_not_followed",
        f"{STORES}::test_no_redirect_leads_from_https_to_http",
        f"{STORES}::test_no_redirect_leads_from_http_to_another_host",
    ),
    "28 credentials or two hosts in a URL": (
        "uri-user-and-password", "uri-user-only", "uri-s3-password", "uri-gs-password", "uri-backslash-host",
        "endpoint-with-password",
    ),
    "29 paths that lead elsewhere": (
        "uri-dotdot", "uri-encoded-dotdot", "uri-encoded-slash", "uri-doubly-encoded", "uri-encoded-backslash",
        "uri-pvc-out-of-the-claim", "uri-pvc-out-of-the-claim-encoded",
        "mount-dotdot", f"{SERVER}::test_no_name_leads_out_of_the_directory",
    ),
    "30 what is in another namespace": (
        "other-namespace", "secret-in-another-namespace", "secret-of-another-namespace", "volume-secret-elsewhere",
        "serviceAccountName-kube-system/admin", "neighbours-in-another-namespace", "config-map", "claim", "pull",
    ),
    "31 a Secret that is not there": (
        "tests/e2e/test_tenancy.py::test_a_name_means_what_is_in_the_same_namespace",
        "tests/e2e/test_storage.py::test_a_secret_that_is_not_there_is_missed_by_what_it_needs_until_it_is_there",
    ),
    "32 a Secret that did not opt in": "whoever may make pods may mount the namespace's Secrets: Kubernetes' own rule",
    "33 an account with more rights": "the same rule; and no pod of a model gets that account's API token",
    "34 more than a restricted pod": (
        "host-path", "token", "host-network", "root", "api-token", "pod-hostPID", "pod-hostIPC", "pod-containers",
        "pod-initContainers", "pod-shareProcessNamespace", "privileged", "command", "mount-over-token",
    ),
    "35 environment that changes the server": (
        "env-ld-preload", "env-pythonpath", "env-pythonstartup-mixed-case", "env-ours", "env-kubernetes",
        "env-reference", "secret-in-the-environment",
    ),
    "36 our own labels": ("labels",),
    "37 a host or path of somebody else": (
        "host-of-a-modeldeployment",
        "host-of-a-service",
        "host-of-the-cluster",
        "tests/e2e/test_traffic.py::test_a_host_that_another_one_has_is_told_and_comes_when_it_is_free",
    ),
    "38 headers that steer the router": ("header",),
    "39 a long spec": (
        "uri-too-long", "env-long", "entries-too-many", "entries-too-many-in-all-variants",
        "tests/contract/test_crd_shape.py::test_the_largest_spec_stays_below_120_kib",
    ),
    "40 an object too large or too deep": (
        "test_an_object_that_nobody_could_store_is_refused", "nested-without-end",
    ),
    "41 a change of what may not change": "everything may change: each change is a revision of its own",
    "42 text that looks like other text": (
        "variant-homoglyph", "variant-zero-width", "uri-not-ascii", "uri-bidi", "not-utf-8",
    ),
    "43 an owner in another namespace": "the operator owns within a namespace; the garbage collector refuses others",
    "44 a status by the user": (
        "test_a_status_that_a_user_brings_along_is_not_taken",
        "tests/contract/test_chart_install.py::"
        "test_who_edits_a_namespace_edits_its_modeldeployments_but_never_their_status",
    ),
    "45 a version that does not exist": ("test_a_version_that_does_not_exist_is_refused",),
}  # fmt: skip


def collected(files: set[str]) -> dict[str, set[str]]:
    """By file: names of its tests and ids of their rows, as pytest itself finds them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", *sorted(files)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, set[str]] = {file: set() for file in files}
    for line in done.stdout.splitlines():
        if match := re.fullmatch(r"(\S+\.py)::(\w+)(?:\[(.*)\])?", line):
            file, test, row = match.groups()
            found[file] |= {test, row}
    return found


def test_every_proof_in_the_catalogue_is_there() -> None:
    proofs = [(row, proof) for row, listed in CATALOGUE.items() if isinstance(listed, tuple) for proof in listed]
    found = collected({*HERE, *(proof.split("::")[0] for _, proof in proofs if "::" in proof)})
    here = set().union(*(found[file] for file in HERE))

    def known(proof: str) -> bool:
        file, separated, test = proof.partition("::")
        return test in found[file] if separated else proof in here

    assert [f"{row}: {proof}" for row, proof in proofs if not known(proof)] == []
    assert [int(row.split()[0]) for row in CATALOGUE] == list(range(1, 46))
