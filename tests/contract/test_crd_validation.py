"""What the API server itself accepts and refuses, with no webhook anywhere: every refusal names the field.

Each row is a user's mistake (or an attack), the field that the answer has to name, and words that it has to say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from modeldeployments import Api, Object, edited, minimal, split

EXAMPLES = Path(__file__).parents[2] / "manifests" / "examples"
SHA256 = "0123456789abcdef" * 4
URI = "spec.variants.0.model.uri"
POD = "spec.server.podTemplate"


def row(name: str, resource: Object, field: str, words: str) -> Any:
    return pytest.param(resource, field, words, id=name)


def volume(**kind: Any) -> Object:
    return edited(POD, {"volumes": [{"name": "data", **kind}]})


def mount(path: str, volume: str = "data") -> Object:
    volumes = [{"name": "data", "emptyDir": {}}]
    return edited(POD, {"volumes": volumes, "volumeMounts": [{"name": volume, "mountPath": path}]})


def environment(name: str, value: str = "1") -> Object:
    return edited(f"{POD}.env", [{"name": name, "value": value}])


def variables(count: int) -> list[Object]:
    return [{"name": f"A{number}", "value": ""} for number in range(count)]


ONE_OVERRIDE = edited("spec.variants.0.server", {"podTemplate": {"env": variables(16)}}, split(50, 50))

NAMES = [
    row("name-with-a-dot", minimal("a.b"), "metadata.name", "DNS label"),
    row("name-that-starts-with-a-digit", minimal("1st"), "metadata.name", "starting with a letter"),
    row("name-too-long", minimal("a" * 64), "metadata.name", "63"),
    row("variant-in-capitals", edited("spec.variants.0.name", "Stable"), "spec.variants[0].name", "DNS label"),
    row("variant-name-too-long", edited("spec.variants.0.name", "a" * 31), "spec.variants[0].name", "30"),
    row("variant-homoglyph", edited("spec.variants.0.name", "stаble"), "spec.variants[0].name", "DNS label"),
    row("variant-zero-width", edited("spec.variants.0.name", "a\u200bb"), "spec.variants[0].name", "DNS label"),
]

VARIANTS = [
    row("no-spec", {k: v for k, v in minimal().items() if k != "spec"}, "spec", "Required"),
    row("no-variants", edited("spec", {}), "spec.variants", "Required"),
    row("empty-variants", edited("spec.variants", []), "spec.variants", "at least 1"),
    row("eleven-variants", split(*[10] * 9, 5, 5), "spec.variants", "at most 10"),
    row("no-model", edited("spec.variants", [{"name": "a"}]), "spec.variants[0].model", "Required"),
    row("no-uri", edited("spec.variants.0.model", {}), "spec.variants[0].model.uri", "Required"),
    row(
        "same-name-twice",
        edited("spec.variants.1.name", "a", split(50, 50)),
        "spec.variants[1]",
        "Duplicate value",
    ),
    row("weights-too-many", split(95, 6), "spec.variants", "sum to 101"),
    row("weights-too-few", split(95, 4), "spec.variants", "sum to 99"),
    row("weight-missing", split(50, None), "spec.variants", "every variant needs a weight"),
    row("alone-with-half", split(50), "spec.variants", "sum to 50"),
    row("weight-negative", split(-1, 101), "spec.variants[0].weight", "greater than or equal to 0"),
    row("weight-over-100", split(0, 101), "spec.variants[1].weight", "less than or equal to 100"),
    row("weight-fraction", edited("spec.variants.0.weight", 33.3), "spec.variants[0].weight", "integer"),
    row("weight-text", edited("spec.variants.0.weight", "100"), "spec.variants[0].weight", "integer"),
]

URIS = [
    row(f"uri-{name}", edited(URI, uri), "spec.variants[0].model.uri", words)
    for name, uri, words in [
        ("empty", "", "at least 1 chars"),
        ("too-long", "https://host/" + "a" * 2036, "may not be more than 2048"),
        ("file", "file:///etc/passwd", "must start with https://"),
        ("path", "/var/run/secrets/kubernetes.io/serviceaccount/token", "must start with https://"),
        ("ftp", "ftp://host/model.onnx", "must start with https://"),
        ("capital-scheme", "HTTPS://host/model.onnx", "in lower case"),
        ("no-host", "https:///model.onnx", "http(s)://<host>"),
        ("no-path", "https://host", "http(s)://<host>"),
        ("user-and-password", "https://ada:secret@host/model.onnx", "user name or password"),
        ("user-only", "https://ada@host/model.onnx", "user name or password"),
        ("s3-password", "s3://key:secret@bucket/model.onnx", "user name or password"),
        ("backslash-host", "https://ok.example\\@169.254.169.254/model.onnx", "may not have"),
        ("space", "https://host/a model.onnx", "a space"),
        ("newline", "https://host/model.onnx\n", "a control character"),
        ("nul", "https://host/model\u0000.onnx", "a control character"),
        ("not-ascii", "https://host/modèle.onnx", "outside ASCII"),
        ("bidi", "https://host/\u202exnno.ledom", "outside ASCII"),
        ("encoded-nul", "https://host/model%00.onnx", "encoded control character"),
        ("encoded-newline", "https://host/model%0d%0a.onnx", "encoded control character"),
        ("broken-escape", "https://host/model%2.onnx", "broken percent-encoding"),
        ("dotdot", "s3://models/../secrets/key", '".."'),
        ("encoded-dotdot", "https://host/a/%2e%2e/b", '".."'),
        ("encoded-slash", "https://host/a%2F..%2Fb", '".."'),
        ("doubly-encoded", "https://host/a/%252e%252e/b", '".."'),
        ("encoded-backslash", "https://host/a/%5c..", '".."'),
        ("fragment", "https://host/model.onnx#a", "fragment"),
        ("loopback", "https://127.0.0.1/model.onnx", "loopback"),
        ("loopback-other", "https://127.8.9.1:8443/model.onnx", "loopback"),
        ("loopback-short", "https://127.1/model.onnx", "usual spelling"),
        ("loopback-decimal", "https://2130706433/model.onnx", "usual spelling"),
        ("loopback-hexadecimal", "https://0x7f000001/model.onnx", "usual spelling"),
        ("loopback-hexadecimal-parts", "https://0x7f.0.0.0x1/model.onnx", "usual spelling"),
        ("loopback-octal", "https://0177.0.0.1/model.onnx", "usual spelling"),
        ("loopback-padded", "https://127.000.000.001/model.onnx", "usual spelling"),
        ("loopback-final-dot", "https://127.0.0.1./model.onnx", "usual spelling"),
        ("loopback-ipv6", "https://[::1]/model.onnx", "loopback"),
        ("loopback-ipv6-long", "https://[0:0:0:0:0:0:0:1]/model.onnx", "loopback"),
        ("loopback-mapped", "https://[::ffff:127.0.0.1]/model.onnx", "usual spelling"),
        ("loopback-mapped-hexadecimal", "https://[::ffff:7f00:1]/model.onnx", "usual spelling"),
        ("loopback-compatible", "https://[::7f00:1]/model.onnx", "loopback"),
        ("loopback-nat64", "https://[64:ff9b::7f00:1]/model.onnx", "loopback"),
        ("localhost", "https://localhost/model.onnx", "localhost"),
        ("localhost-capitals", "https://LocalHost:8443/model.onnx", "localhost"),
        ("localhost-final-dot", "https://localhost./model.onnx", "localhost"),
        ("localhost-subdomain", "https://a.localhost/model.onnx", "localhost"),
        ("unspecified", "https://0.0.0.0/model.onnx", "loopback"),
        ("unspecified-ipv6", "https://[::]/model.onnx", "loopback"),
        ("zero", "https://0/model.onnx", "usual spelling"),
        ("this-network", "https://0.1.2.3/model.onnx", "loopback"),
        ("link-local", "https://169.254.169.254/latest/meta-data/", "link-local"),
        ("link-local-decimal", "https://2852039166/latest/meta-data/", "usual spelling"),
        ("link-local-hexadecimal", "https://0xa9fea9fe/latest/meta-data/", "usual spelling"),
        ("link-local-mapped", "https://[::ffff:169.254.169.254]/a", "usual spelling"),
        ("link-local-ipv6", "https://[fe80::1]/model.onnx", "link-local"),
        ("link-local-zone", "https://[fe80::1%25eth0]/model.onnx", "http(s)://<host>"),
        ("metadata-ipv6", "https://[fd00:ec2::254]/a", "metadata service"),
        ("metadata-name", "https://metadata.google.internal/a", "metadata service"),
        ("encoded-host", "https://%31%32%37.0.0.1/a", "http(s)://<host>"),
        ("s3-no-key", "s3://models", "s3://<bucket>/<key>"),
        ("s3-empty-key", "s3://models/", "s3://<bucket>/<key>"),
        ("s3-query", "s3://models/a?versionId=1", "s3://<bucket>/<key>"),
        ("s3-bucket-in-capitals", "s3://Models/a", "s3://<bucket>/<key>"),
        ("gs-no-object", "gs://models", "gs://<bucket>/<object>"),
        ("gs-bucket-in-capitals", "gs://Models/a", "gs://<bucket>/<object>"),
        ("gs-generation", "gs://models/a?generation=1", "gs://<bucket>/<object>"),
        ("gs-password", "gs://key:secret@models/a", "user name or password"),
        ("az-container-alone", "az://models/model.onnx", "az://<account>/<container>/<blob>"),
        ("az-host", "az://account.blob.core.windows.net/models/a", "az://<account>/<container>/<blob>"),
        ("az-container-with-two-hyphens", "az://account/a--b/model.onnx", "az://<account>/<container>/<blob>"),
        ("az-signature", "az://account/models/a?sv=1&sig=s", "az://<account>/<container>/<blob>"),
        ("pvc-no-path", "pvc://claim", "pvc://<claim>/<path>"),
        ("pvc-empty-path", "pvc://claim/", "pvc://<claim>/<path>"),
        ("pvc-double-slash", "pvc://claim//model.onnx", "pvc://<claim>/<path>"),
        ("pvc-in-capitals", "pvc://Claim/model.onnx", "pvc://<claim>/<path>"),
        ("pvc-out-of-the-claim", "pvc://claim/../../etc/inflight/storage/key", '".."'),
        ("pvc-out-of-the-claim-encoded", "pvc://claim/%2e%2e/key", '".."'),
        ("image-shell", "image://a;reboot", "image://<repository>"),
        ("image-empty", "image://", "image://<repository>"),
        ("image-wrong-digest", "image://a@sha256:123", "image://<repository>"),
        ("image-on-loopback", "image://127.0.0.1:5000/a", "loopback"),
        ("image-on-localhost", "image://localhost:5000/a", "localhost"),
    ]
]

MODEL = [
    row("http-without-sha256", edited(URI, "http://host/model.onnx"), "spec.variants[0].model.sha256", "not encrypted"),
    row(
        "sha256-with-image",
        edited("spec.variants.0.model", {"uri": "image://models/digits:1", "sha256": SHA256}),
        "spec.variants[0].model.sha256",
        "pin the image by its digest",
    ),
    row("sha256-short", edited("spec.variants.0.model.sha256", SHA256[1:]), "spec.variants[0].model.sha256", "64"),
    row(
        "sha256-capitals", edited("spec.variants.0.model.sha256", SHA256.upper()), "spec.variants[0].model.sha256", "64"
    ),
    row(
        "format-pickle", edited("spec.variants.0.model.format", "pickle"), "spec.variants[0].model.format", "supported"
    ),
    row(
        "entrypoint-for-onnx",
        edited("spec.variants.0.model", {"uri": "s3://models/a", "format": "onnx", "entrypoint": "model:A"}),
        "spec.variants[0].model.entrypoint",
        "Python models only",
    ),
    row(
        "entrypoint-code",
        edited("spec.variants.0.model.entrypoint", "os:system('reboot')"),
        "spec.variants[0].model.entrypoint",
        "<module>:<class>",
    ),
    row(
        "storage-for-https",
        edited("spec.variants.0.model", {"uri": "https://host/a", "storage": {"region": "eu-central-1"}}),
        "spec.variants[0].model.storage",
        "s3://, gs:// and az:// only",
    ),
    row(
        "storage-for-pvc",
        edited("spec.variants.0.model", {"uri": "pvc://claim/a", "storage": {"secretRef": {"name": "a"}}}),
        "spec.variants[0].model.storage",
        "s3://, gs:// and az:// only",
    ),
    row(
        "region-for-gs",
        edited("spec.variants.0.model", {"uri": "gs://models/a", "storage": {"region": "eu"}}),
        "spec.variants[0].model.storage.region",
        "s3:// only",
    ),
    *(
        row(
            f"endpoint-{name}",
            edited("spec.variants.0.model.storage", {"endpoint": endpoint}),
            "spec.variants[0].model.storage.endpoint",
            words,
        )
        for name, endpoint, words in [
            ("no-scheme", "s3.demo.svc:7070", "http(s)://<host>"),
            ("with-path", "http://s3.demo.svc/a", "without user, password or path"),
            ("with-password", "http://a:b@s3.demo.svc", "without user, password or path"),
            ("link-local", "http://169.254.169.254", "link-local"),
            ("loopback-decimal", "http://2130706433:80", "usual spelling"),
            ("localhost", "http://localhost:9000", "localhost"),
        ]
    ),
    row(
        "secret-of-another-namespace",
        edited("spec.variants.0.model.storage", {"secretRef": {"name": "other/credentials"}}),
        "spec.variants[0].model.storage.secretRef.name",
        "in this namespace",
    ),
    row(
        "secret-without-name",
        edited("spec.variants.0.model.storage", {"secretRef": {}}),
        "spec.variants[0].model.storage.secretRef.name",
        "Required",
    ),
]

SERVER = [
    row(f"{field}-{value}", edited(f"spec.server.{field}", value), f"spec.server.{field}", words)
    for field, value, words in [
        ("concurrency", 0, "greater than or equal to 1"),
        ("concurrency", 65, "less than or equal to 64"),
        ("maxQueue", -1, "greater than or equal to 0"),
        ("maxQueue", 1001, "less than or equal to 1000"),
        ("timeoutMilliseconds", 0, "greater than or equal to 1"),
        ("timeoutMilliseconds", 600001, "less than or equal to 600000"),
        ("timeoutMilliseconds", "2s", "integer"),
        ("isolation", "container", "Unsupported value"),
        ("image", "", "at least 1"),
        ("image", "server; reboot", "container image"),
        ("image", "server\n", "container image"),
        ("serviceAccountName", "kube-system/admin", "in this namespace"),
    ]
] + [
    row("batching-without-rows", edited("spec.server.batching", {}), "spec.server.batching.maxRows", "Required"),
    row("batches-of-one", edited("spec.server.batching", {"maxRows": 1}), "spec.server.batching.maxRows", "equal to 2"),
    row(
        "cache-without-size",
        edited("spec.server.cache", {"ttlSeconds": 5}),
        "spec.server.cache.maxMegabytes",
        "Required",
    ),
    row(
        "variant-override-out-of-range",
        edited("spec.variants.0.server", {"concurrency": 0}),
        "spec.variants[0].server.concurrency",
        "greater than or equal to 1",
    ),
    row("cpu-text", edited("spec.server.resources.requests.cpu", "abc"), "spec.server.resources.requests[cpu]", "500m"),
    row(
        "memory-negative",
        edited("spec.server.resources.limits.memory", "-1Gi"),
        "spec.server.resources.limits[memory]",
        "not negative",
    ),
    row(
        "cpu-negative-number",
        edited("spec.server.resources.requests.cpu", -1),
        "spec.server.resources.requests[cpu]",
        "not negative",
    ),
    row(
        "request-over-limit",
        edited("spec.server.resources", {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}}),
        "spec.server.resources.requests",
        "more than the limit",
    ),
    row(
        "request-over-limit-as-numbers",
        edited("spec.server.resources", {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}),
        "spec.server.resources.requests",
        "more than the limit",
    ),
    row(
        "resource-name",
        edited("spec.server.resources.requests", {"memroy": "1Gi"}),
        "spec.server.resources.requests",
        "cpu, memory",
    ),
]

POD_TEMPLATE = [
    row("env-ld-preload", environment("LD_PRELOAD"), f"{POD}.env[0].name", "belong to the system"),
    row("env-pythonpath", environment("PYTHONPATH"), f"{POD}.env[0].name", "belong to the system"),
    row("env-pythonstartup-mixed-case", environment("pythonStartup"), f"{POD}.env[0].name", "belong to the system"),
    row("env-ours", environment("INFLIGHT_MODEL_URI"), f"{POD}.env[0].name", "belong to the system"),
    row("env-our-claim", environment("INFLIGHT_CLAIM_DIR", "/"), f"{POD}.env[0].name", "belong to the system"),
    row("env-our-identity", environment("INFLIGHT_STORAGE_IDENTITY"), f"{POD}.env[0].name", "belong to the system"),
    row("env-our-cache-elsewhere", environment("INFLIGHT_CACHE_DIRS"), f"{POD}.env[0].name", "belong to the system"),
    row("env-kubernetes", environment("KUBERNETES_SERVICE_HOST"), f"{POD}.env[0].name", "belong to the system"),
    row("env-name", environment("A B"), f"{POD}.env[0].name", "letters, digits"),
    row("env-twice", edited(f"{POD}.env", [{"name": "A", "value": ""}] * 2), f"{POD}.env[1]", "Duplicate value"),
    row("env-reference", environment("A", "$(HOME)"), f"{POD}.env[0].value", "expanded"),
    row("env-long", environment("A", "a" * 513), f"{POD}.env[0].value", "512"),
    row(
        "entries-too-many",
        edited(POD, {"env": variables(30), "tolerations": [{"operator": "Exists"}] * 3}),
        POD,
        "32 entries",
    ),
    row(
        "affinity-terms-too-many",
        edited(
            POD,
            {
                "env": variables(25),
                "affinity": {
                    "podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "a"}] * 2}
                },
            },
        ),
        POD,
        "32 entries",
    ),
    row(
        "entries-too-many-in-all-variants",
        edited("spec.variants.1.server", {"podTemplate": {"env": variables(17)}}, ONE_OVERRIDE),
        "spec.variants",
        "together may have 32 entries",
    ),
    row("volume-of-no-kind", volume(), f"{POD}.volumes[0]", "exactly one of"),
    row("volume-of-two-kinds", volume(emptyDir={}, secret={"secretName": "a"}), f"{POD}.volumes[0]", "exactly one of"),
    row(
        "volume-name-taken",
        edited(POD, {"volumes": [{"name": "models", "emptyDir": {}}]}),
        f"{POD}.volumes[0].name",
        "taken",
    ),
    row(
        "volume-name-of-the-claim",
        edited(POD, {"volumes": [{"name": "claim", "emptyDir": {}}]}),
        f"{POD}.volumes[0].name",
        "taken",
    ),
    row(
        "volume-secret-elsewhere",
        volume(secret={"secretName": "../a"}),
        f"{POD}.volumes[0].secret.secretName",
        "in this namespace",
    ),
    row("empty-dir-size", volume(emptyDir={"sizeLimit": "much"}), f"{POD}.volumes[0].emptyDir.sizeLimit", "quantity"),
    row("mount-of-nothing", mount("/data", "other"), f"{POD}.volumeMounts", "podTemplate.volumes"),
    row("mount-relative", mount("data"), f"{POD}.volumeMounts[0].mountPath", "absolute path"),
    row("mount-dotdot", mount("/data/../models"), f"{POD}.volumeMounts[0].mountPath", "absolute path"),
    row("mount-over-models", mount("/models/a"), f"{POD}.volumeMounts[0].mountPath", "may not hide"),
    row("mount-over-token", mount("/var/run/secrets"), f"{POD}.volumeMounts[0].mountPath", "may not hide"),
    row("node-selector-key", edited(f"{POD}.nodeSelector", {"a b": "c"}), f"{POD}.nodeSelector", "label keys"),
    row("node-selector-value", edited(f"{POD}.nodeSelector", {"a": "b c"}), f"{POD}.nodeSelector[a]", "label value"),
    row(
        "toleration-of-nothing",
        edited(f"{POD}.tolerations", [{"value": "a"}]),
        f"{POD}.tolerations[0].operator",
        "must be Exists",
    ),
    row(
        "toleration-effect",
        edited(f"{POD}.tolerations", [{"key": "a", "effect": "Never"}]),
        f"{POD}.tolerations[0].effect",
        "supported",
    ),
    row(
        "spread-skew",
        edited(
            f"{POD}.topologySpreadConstraints",
            [{"maxSkew": 0, "topologyKey": "a", "whenUnsatisfiable": "DoNotSchedule"}],
        ),
        f"{POD}.topologySpreadConstraints[0].maxSkew",
        "greater than or equal to 1",
    ),
]

AUTOSCALING = [
    row("min-zero", edited("spec.autoscaling.minReplicas", 0), "spec.autoscaling.minReplicas", "equal to 1"),
    row("min-negative", edited("spec.autoscaling.minReplicas", -1), "spec.autoscaling.minReplicas", "equal to 1"),
    row("max-zero", edited("spec.autoscaling.maxReplicas", 0), "spec.autoscaling.maxReplicas", "equal to 1"),
    row("max-absurd", edited("spec.autoscaling.maxReplicas", 10**9), "spec.autoscaling.maxReplicas", "1000"),
    row(
        "min-over-max",
        edited("spec.autoscaling", {"minReplicas": 5, "maxReplicas": 3}),
        "spec.autoscaling.minReplicas",
        "minReplicas (5) may not be more than maxReplicas (3)",
    ),
    row(
        "min-over-default-max",
        edited("spec.autoscaling.minReplicas", 11),
        "spec.autoscaling.minReplicas",
        "minReplicas (11) may not be more than maxReplicas (10)",
    ),
    row("target-zero", edited("spec.autoscaling.targetInFlight", 0), "spec.autoscaling.targetInFlight", "equal to 1"),
    row(
        "stabilization-negative",
        edited("spec.autoscaling.scaleDownStabilizationSeconds", -1),
        "spec.autoscaling.scaleDownStabilizationSeconds",
        "equal to 0",
    ),
    row("history-negative", edited("spec.revisionHistoryLimit", -1), "spec.revisionHistoryLimit", "equal to 0"),
    row("history-long", edited("spec.revisionHistoryLimit", 11), "spec.revisionHistoryLimit", "equal to 10"),
]


ACCESS = "spec.traffic.access"
KEYS = '{"keys": [{"kty": "EC", "crv": "P-256", "x": "x", "y": "y"}]}'


def accounts(*names: str) -> Object:
    return edited(f"{ACCESS}.serviceAccounts", list(names))


def issuer(**fields: Any) -> Object:
    return edited(f"{ACCESS}.jwt", {"issuer": "https://login.example/", "audiences": ["models"], **fields})


def keys_at(url: str) -> Object:
    return issuer(jwksUri=url)


ACCESS_MISTAKES = [
    row("account-without-a-namespace", accounts("runner"), f"{ACCESS}.serviceAccounts[0]", "<namespace>/<service"),
    row("account-of-every-namespace", accounts("*/runner"), f"{ACCESS}.serviceAccounts[0]", "<namespace>/<service"),
    row("account-with-a-pattern", accounts("demo/run*"), f"{ACCESS}.serviceAccounts[0]", "<namespace>/<service"),
    row("account-as-a-subject", accounts("system:serviceaccount:a:b"), f"{ACCESS}.serviceAccounts[0]", "<namespace>"),
    row("account-twice", accounts("a/b", "a/b"), f"{ACCESS}.serviceAccounts[1]", "Duplicate"),
    row("nobody", accounts(), f"{ACCESS}.serviceAccounts", "at least 1"),
    row("too-many-accounts", accounts(*(f"a/b{n}" for n in range(33))), f"{ACCESS}.serviceAccounts", "at most 32"),
    row("no-keys", issuer(), f"{ACCESS}.jwt", "needs one of jwks and jwksUri"),
    row("keys-twice", issuer(jwks=KEYS, jwksUri="https://a.example/k"), f"{ACCESS}.jwt", "needs one of"),
    row("any-audience", issuer(jwks=KEYS, audiences=[]), f"{ACCESS}.jwt.audiences", "at least 1"),
    row("empty-audience", issuer(jwks=KEYS, audiences=[""]), f"{ACCESS}.jwt.audiences[0]", "at least 1 char"),
    row("any-issuer", issuer(jwks=KEYS, issuer=""), f"{ACCESS}.jwt.issuer", "at least 1 char"),
    row("issuer-with-a-space", issuer(jwks=KEYS, issuer="a b"), f"{ACCESS}.jwt.issuer", "visible ASCII"),
    row("keys-that-are-none", issuer(jwks="-----BEGIN PUBLIC KEY-----"), f"{ACCESS}.jwt.jwks", "JSON Web Key Set"),
    row("private-key", issuer(jwks='{"keys": [{"kty": "EC", "d": "x"}]}'), f"{ACCESS}.jwt.jwks", "private"),
    row("shared-secret", issuer(jwks='{"keys": [{"kty": "oct", "k" : "x"}]}'), f"{ACCESS}.jwt.jwks", "symmetric"),
    row("keys-in-plain-text", keys_at("http://login.example/keys"), f"{ACCESS}.jwt.jwksUri", "must be https://"),
    row("keys-with-a-password", keys_at("https://a:b@login.example/keys"), f"{ACCESS}.jwt.jwksUri", "must be https://"),
    row("keys-at-home", keys_at("https://localhost/keys"), f"{ACCESS}.jwt.jwksUri", "localhost"),
    row("keys-at-home-by-number", keys_at("https://127.0.0.1/keys"), f"{ACCESS}.jwt.jwksUri", "loopback"),
    row("keys-at-home-in-hex", keys_at("https://0x7f.1/keys"), f"{ACCESS}.jwt.jwksUri", "usual spelling"),
    row("keys-of-the-machine", keys_at("https://169.254.169.254/keys"), f"{ACCESS}.jwt.jwksUri", "link-local"),
]


STICKY, RULES = "spec.traffic.sticky", "spec.traffic.rules"


def rule(**fields: Any) -> Object:
    return edited(RULES, [{"variant": "stable", **fields}])


def below(prefix: str) -> Object:
    return rule(path={"prefix": prefix})


MIRROR = "spec.traffic.mirror"
SHADOWED = split(100, 0)


HOSTS, EFFORT = "spec.traffic.hosts", "spec.traffic"


def named(*hosts: str) -> Object:
    return edited(HOSTS, list(hosts))


CHOICE_MISTAKES = [
    row("hosts-none", named(), HOSTS, "at least 1"),
    row("hosts-too-many", named(*(f"h{i}.ml.example" for i in range(9))), HOSTS, "at most 8"),
    row("host-twice", named("a.ml.example", "a.ml.example"), f"{HOSTS}[1]", "Duplicate"),
    row("host-of-a-modeldeployment", named("digits.demo"), f"{HOSTS}[0]", "address of a ModelDeployment"),
    row("host-of-a-service", named("digits.demo.svc"), f"{HOSTS}[0]", "label svc"),
    row("host-of-the-cluster", named("digits.demo.svc.cluster.local"), f"{HOSTS}[0]", "label svc"),
    row("host-for-all", named("*.ml.example"), f"{HOSTS}[0]", "three labels"),
    row("host-in-capitals", named("Digits.ml.example"), f"{HOSTS}[0]", "three labels"),
    row("host-with-port", named("digits.ml.example:80"), f"{HOSTS}[0]", "three labels"),
    row("host-with-a-final-dot", named("digits.ml.example."), f"{HOSTS}[0]", "three labels"),
    row("host-that-is-an-address", named("10.0.0.5"), f"{HOSTS}[0]", "router's own"),
    row("timeout-none", edited(f"{EFFORT}.timeoutMilliseconds", 0), f"{EFFORT}.timeoutMilliseconds", "equal to 1"),
    row(
        "timeout-of-hours",
        edited(f"{EFFORT}.timeoutMilliseconds", 600_001),
        f"{EFFORT}.timeoutMilliseconds",
        "600000",
    ),
    row(
        "budget-below-nothing",
        edited(f"{EFFORT}.retries", {"budgetPercent": -1}),
        f"{EFFORT}.retries.budgetPercent",
        "0",
    ),
    row(
        "budget-above-all",
        edited(f"{EFFORT}.retries", {"budgetPercent": 101}),
        f"{EFFORT}.retries.budgetPercent",
        "100",
    ),
    row("hedging-of-what-does-harm", edited(f"{EFFORT}.hedging", {}), f"{EFFORT}.hedging", "executed twice"),
    row(
        "hedging-without-a-budget",
        edited(EFFORT, {"hedging": {}, "idempotent": True, "retries": {"budgetPercent": 0}}),
        f"{EFFORT}.hedging",
        "budget of retries",
    ),
    row(
        "hedging-of-all",
        edited(EFFORT, {"hedging": {"budgetPercent": 21}, "idempotent": True}),
        f"{EFFORT}.hedging.budgetPercent",
        "20",
    ),
    row("idempotent-perhaps", edited(f"{EFFORT}.idempotent", "perhaps"), f"{EFFORT}.idempotent", "boolean"),
    row("copies-for-nobody", edited(MIRROR, {"percent": 5}, SHADOWED), f"{MIRROR}.variant", "Required"),
    row("copies-for-somebody-else", edited(MIRROR, {"variant": "x"}, SHADOWED), f"{MIRROR}.variant", "one of the"),
    row("copies-for-who-answers", edited(MIRROR, {"variant": "a"}, SHADOWED), f"{MIRROR}.variant", "with weight 0"),
    row("no-copies", edited(MIRROR, {"variant": "b", "percent": 0}, SHADOWED), f"{MIRROR}.percent", "equal to 1"),
    row("copies-of-copies", edited(MIRROR, {"variant": "b", "percent": 101}, SHADOWED), f"{MIRROR}.percent", "to 100"),
    row(
        "copies-none-at-once",
        edited(MIRROR, {"variant": "b", "maxInFlight": 0}, SHADOWED),
        f"{MIRROR}.maxInFlight",
        "1",
    ),
    row("sticky-by-nothing", edited(STICKY, {}), STICKY, "needs one of header and cookie"),
    row("sticky-by-both", edited(STICKY, {"header": "x-a", "cookie": "a"}), STICKY, "needs one of"),
    row(
        "header-that-lasts", edited(STICKY, {"header": "x-a", "ttlSeconds": 60}), f"{STICKY}.ttlSeconds", "cookie only"
    ),
    row("header-in-capitals", edited(STICKY, {"header": "X-User"}), f"{STICKY}.header", "lower-case"),
    row("header-of-the-router", edited(STICKY, {"header": "x-envoy-retry-on"}), f"{STICKY}.header", "x-envoy-"),
    row("cookie-as-a-header", edited(STICKY, {"header": "cookie"}), f"{STICKY}.header", "use the field cookie"),
    row("pseudo-header", edited(STICKY, {"header": ":authority"}), f"{STICKY}.header", "lower-case"),
    row("cookie-with-a-pattern", edited(STICKY, {"cookie": "a.*"}), f"{STICKY}.cookie", "hyphens and underscores"),
    row("cookie-with-a-value", edited(STICKY, {"cookie": "a=b"}), f"{STICKY}.cookie", "hyphens and underscores"),
    row(
        "cookie-for-a-moment", edited(STICKY, {"cookie": "a", "ttlSeconds": 59}), f"{STICKY}.ttlSeconds", "equal to 60"
    ),
    row("rule-for-nobody", edited(RULES, [{"header": {"name": "x-a"}}]), f"{RULES}[0].variant", "Required"),
    row("rule-for-somebody-else", rule(variant="other", header={"name": "x-a"}), RULES, "one of the variants"),
    row("rule-for-everything", rule(), f"{RULES}[0]", "needs a header, a path, or both"),
    row("rule-header-in-capitals", rule(header={"name": "X-A"}), f"{RULES}[0].header.name", "lower-case"),
    row("rule-value-with-a-newline", rule(header={"name": "a", "exact": "b\n"}), f"{RULES}[0].header.exact", "visible"),
    row("rule-path-without-a-slash", below("v2/a"), f"{RULES}[0].path.prefix", "begin with a slash"),
    row("rule-path-is-all", below("/"), f"{RULES}[0].path.prefix", "at least 2"),
    row("rule-path-with-a-query", below("/v2?a"), f"{RULES}[0].path.prefix", "begin with a slash"),
    row("rule-path-that-climbs", below("/v2/../a"), f"{RULES}[0].path.prefix", "segments"),
    row("rule-path-that-ends-in-dots", below("/v2/.."), f"{RULES}[0].path.prefix", "segments"),
    row("rule-path-with-two-slashes", below("/v2//a"), f"{RULES}[0].path.prefix", "segments"),
    row("too-many-rules", edited(RULES, [{"variant": "stable", "path": {"prefix": "/a"}}] * 17), RULES, "at most 16"),
]


@pytest.mark.parametrize(
    ("resource", "field", "words"),
    NAMES + VARIANTS + URIS + MODEL + SERVER + POD_TEMPLATE + AUTOSCALING + ACCESS_MISTAKES + CHOICE_MISTAKES,
)
def test_a_mistake_is_refused_and_the_field_named(api: Api, resource: Object, field: str, words: str) -> None:
    answer = api.create(resource)
    assert answer.status_code == 422, answer.text
    causes = [cause for cause in answer.json()["details"]["causes"] if cause["field"] == field]
    assert any(words in cause["message"] for cause in causes), answer.json()["message"]


@pytest.mark.parametrize(
    ("resource", "field"),
    [
        pytest.param(edited("spec.replcias", 3), "spec.replcias", id="typing-error"),
        pytest.param(edited("spec.variants.0.namespace", "other"), "spec.variants[0].namespace", id="other-namespace"),
        pytest.param(
            edited("spec.variants.0.model.storage", {"secretRef": {"name": "a", "namespace": "other"}}),
            "spec.variants[0].model.storage.secretRef.namespace",
            id="secret-in-another-namespace",
        ),
        pytest.param(volume(emptyDir={}, hostPath={"path": "/"}), f"{POD}.volumes[0].hostPath", id="host-path"),
        pytest.param(
            volume(projected={"sources": [{"serviceAccountToken": {}}]}), f"{POD}.volumes[0].projected", id="token"
        ),
        pytest.param(edited(f"{POD}.hostNetwork", True), f"{POD}.hostNetwork", id="host-network"),
        pytest.param(edited(f"{POD}.securityContext", {"runAsUser": 0}), f"{POD}.securityContext", id="root"),
        pytest.param(
            edited(f"{POD}.automountServiceAccountToken", True), f"{POD}.automountServiceAccountToken", id="api-token"
        ),
        pytest.param(edited(f"{POD}.metadata", {"labels": {"a": "b"}}), f"{POD}.metadata", id="labels"),
        pytest.param(
            edited(
                f"{POD}.env", [{"name": "A", "value": "", "valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}]
            ),
            f"{POD}.env[0].valueFrom",
            id="secret-in-the-environment",
        ),
        pytest.param(
            edited(
                f"{POD}.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution",
                [{"topologyKey": "a", "namespaces": ["other"]}],
            ),
            f"{POD}.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].namespaces",
            id="neighbours-in-another-namespace",
        ),
    ],
)
def test_a_field_that_does_not_exist_is_refused_by_name(api: Api, resource: Object, field: str) -> None:
    answer = api.create(resource)
    assert answer.status_code == 400, answer.text
    assert f'unknown field "{field}"' in answer.json()["message"]


FULL = {
    **minimal(),
    "spec": {
        "variants": [
            {
                "name": "stable",
                "weight": 95,
                "model": {
                    "uri": "s3://models/digits/1/model.onnx",
                    "sha256": SHA256,
                    "format": "onnx",
                    "storage": {
                        "endpoint": "http://s3.demo.svc:7070",
                        "region": "us-east-1",
                        "secretRef": {"name": "s3-credentials"},
                    },
                },
            },
            {
                "name": "candidate",
                "weight": 5,
                "model": {"uri": "https://models.example/m.py", "format": "python", "entrypoint": "pkg.model:Sleep"},
                "server": {
                    "concurrency": 64,
                    "maxQueue": 0,
                    "isolation": "thread",
                    "batching": {"maxRows": 64, "maxDelayMilliseconds": 5},
                    "cache": {"maxMegabytes": 64, "ttlSeconds": 300},
                    "timeoutMilliseconds": 600000,
                    "resources": {"limits": {"nvidia.com/gpu": 1}},
                    "podTemplate": {"nodeSelector": {"gpu": "a100"}},
                },
            },
        ],
        "traffic": {
            "hosts": ["digits.ml.example", "digits.example.com"],
            "timeoutMilliseconds": 1500,
            "idempotent": True,
            "retries": {"budgetPercent": 50},
            "hedging": {"budgetPercent": 10},
            "sticky": {"cookie": "inflight-user", "ttlSeconds": 3600},
            "rules": [
                {"variant": "candidate", "header": {"name": "x-qa", "exact": "1"}, "path": {"prefix": "/v2/"}},
                {"variant": "stable", "header": {"name": "x-any"}},
            ],
        },
        "server": {
            "concurrency": 2,
            "maxQueue": 16,
            "timeoutMilliseconds": 2000,
            "image": f"registry.example:5000/team/server:1.2@sha256:{SHA256}",
            "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": 1, "memory": "1Gi"}},
            "serviceAccountName": "model-reader",
            "podTemplate": {
                "nodeSelector": {"kubernetes.io/arch": "amd64"},
                "tolerations": [
                    {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
                    {"key": "spot", "value": "true", "effect": "NoExecute", "tolerationSeconds": 60},
                ],
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a", "b"]}]}
                            ]
                        }
                    },
                    "podAntiAffinity": {
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {
                                "weight": 100,
                                "podAffinityTerm": {
                                    "topologyKey": "kubernetes.io/hostname",
                                    "labelSelector": {
                                        "matchLabels": {"serving.inflight.dev/modeldeployment": "digits"}
                                    },
                                },
                            }
                        ]
                    },
                },
                "topologySpreadConstraints": [
                    {
                        "maxSkew": 1,
                        "topologyKey": "topology.kubernetes.io/zone",
                        "whenUnsatisfiable": "ScheduleAnyway",
                        "labelSelector": {"matchLabels": {"serving.inflight.dev/modeldeployment": "digits"}},
                    }
                ],
                "imagePullSecrets": [{"name": "registry"}],
                "volumes": [
                    {"name": "tables", "configMap": {"name": "tables", "optional": True}},
                    {"name": "keys", "secret": {"secretName": "keys"}},
                    {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
                    {"name": "shared", "persistentVolumeClaim": {"claimName": "shared", "readOnly": True}},
                ],
                "volumeMounts": [
                    {"name": "tables", "mountPath": "/etc/tables", "readOnly": True},
                    {"name": "shared", "mountPath": "/data", "subPath": "tables/v1", "readOnly": True},
                ],
                "env": [
                    {"name": "OMP_NUM_THREADS", "value": "1"},
                    {"name": "INFLIGHT_EXAMPLE_WAIT_MS", "value": "100"},
                ],
            },
        },
        "autoscaling": {
            "minReplicas": 3,
            "maxReplicas": 1000,
            "targetInFlight": 4,
            "scaleDownStabilizationSeconds": 0,
        },
        "revisionHistoryLimit": 0,
    },
}


def model(**fields: str) -> Object:
    return edited("spec.variants.0.model", fields)


@pytest.mark.parametrize(
    "resource",
    [
        pytest.param(minimal(), id="minimal"),
        pytest.param(FULL, id="full"),
        pytest.param(minimal("a" * 63), id="longest-name"),
        pytest.param(split(100), id="alone-with-all"),
        pytest.param(split(100, 0), id="one-gets-nothing"),
        pytest.param(split(*[10] * 10), id="ten-variants"),
        pytest.param(model(uri="https://models.example/a/b/model.onnx"), id="https"),
        pytest.param(model(uri="https://models.example:8443/m.onnx?X-Credential=a%2Fb&t=1"), id="signed-url"),
        pytest.param(model(uri="https://10.0.0.8/model.onnx"), id="private-address"),
        pytest.param(model(uri="https://[2001:db8::8]:8443/model.onnx"), id="ipv6-address"),
        pytest.param(model(uri="https://store.demo.svc.cluster.local/model.onnx"), id="host-in-the-cluster"),
        pytest.param(model(uri="https://7.example/v1.2/model-1.0.onnx"), id="digits-in-names"),
        pytest.param(model(uri="https://notlocalhost.example/localhost"), id="localhost-elsewhere"),
        pytest.param(model(uri="http://store.demo.svc/model.onnx", sha256=SHA256), id="http-with-sha256"),
        pytest.param(model(uri="s3://my.models-1/digits/1"), id="s3-prefix"),
        pytest.param(model(uri="s3://models/a%20b.onnx"), id="s3-encoded-space"),
        pytest.param(model(uri="gs://my_models.example/digits/1/model.tar.gz"), id="gs"),
        pytest.param(model(uri="az://account1/my-models/digits/1/model.onnx"), id="az"),
        pytest.param(model(uri="pvc://shared.models/digits/1/"), id="pvc-directory"),
        pytest.param(
            edited("spec.variants.0.model", {"uri": "gs://models/a", "storage": {"secretRef": {"name": "key"}}}),
            id="gs-with-a-secret",
        ),
        pytest.param(
            edited(
                "spec.variants.0.model", {"uri": "az://acc/models/a", "storage": {"endpoint": "https://acc.example"}}
            ),
            id="az-elsewhere",
        ),
        pytest.param(
            edited(
                POD,
                {
                    "env": [
                        {"name": "INFLIGHT_CACHE_DIR", "value": "/cache"},
                        {"name": "INFLIGHT_MAX_MODEL_BYTES", "value": "100000000000"},
                        {"name": "INFLIGHT_FETCH_CONNECTIONS", "value": "16"},
                    ]
                },
            ),
            id="limits-of-fetching",
        ),
        pytest.param(model(uri="image://digits"), id="image-name"),
        pytest.param(model(uri="image://digits:1.0"), id="image-tag"),
        pytest.param(model(uri=f"image://registry.example:5000/team/digits@sha256:{SHA256}"), id="image-digest"),
        pytest.param(model(uri="s3://models/a.py", format="python"), id="python-with-one-class"),
        pytest.param(
            edited("spec.variants.1.server", {"podTemplate": {"env": variables(16)}}, ONE_OVERRIDE), id="32-entries"
        ),
        pytest.param(edited(ACCESS, {}), id="own-namespace-may-ask"),
        pytest.param(accounts("demo/*", "batch/runner-2.a"), id="accounts-may-ask"),
        pytest.param(issuer(jwks=KEYS), id="issuer-with-keys"),
        pytest.param(keys_at("https://login.example:8443/a/keys?v=1"), id="issuer-with-keys-elsewhere"),
        pytest.param(keys_at("https://10.0.0.8/keys"), id="issuer-with-a-private-address"),
        pytest.param(edited(MIRROR, {"variant": "b", "percent": 1, "maxInFlight": 1000}, SHADOWED), id="copies"),
        pytest.param(edited(STICKY, {"header": "x-user-id"}), id="sticky-by-a-header"),
        pytest.param(edited(STICKY, {"cookie": "inflight-user", "ttlSeconds": 31536000}), id="sticky-by-a-cookie"),
        pytest.param(rule(header={"name": "x-qa", "exact": "a b"}, path={"prefix": "/v2/models/a.b/"}), id="rule"),
        pytest.param(below("/v1/..a/b"), id="rule-for-a-name-with-dots"),
        pytest.param(edited("spec.server.resources.requests", {"cpu": 1, "memory": "0.5Gi"}), id="quantities"),
    ],
)
def test_what_makes_sense_is_accepted(api: Api, resource: Object) -> None:
    answer = api.create(resource)
    assert answer.status_code == 201, answer.json()["message"]


@pytest.mark.parametrize("example", sorted(path.name for path in EXAMPLES.glob("*.yaml")))
def test_every_example_is_accepted(api: Api, example: str) -> None:
    resource = edited("metadata.namespace", "default", yaml.safe_load((EXAMPLES / example).read_text()))
    answer = api.create(resource)
    assert answer.status_code == 201, answer.json()["message"]


def test_what_is_left_out_gets_its_default(api: Api) -> None:
    assert api.create(minimal()).json()["spec"] == {
        "variants": [{"name": "stable", "model": {"uri": "s3://models/digits/1/model.onnx", "format": "auto"}}],
        "server": {"concurrency": 1, "maxQueue": 8, "timeoutMilliseconds": 10000},
        "autoscaling": {"minReplicas": 1, "maxReplicas": 10, "scaleDownStabilizationSeconds": 300},
        "revisionHistoryLimit": 3,
    }


def test_what_is_given_comes_back_unchanged(api: Api) -> None:
    assert api.create(FULL).json()["spec"] == {
        **FULL["spec"],
        "variants": [
            FULL["spec"]["variants"][0],
            # A variant's own server settings get no defaults: they would hide those of spec.server.
            FULL["spec"]["variants"][1],
        ],
    }
