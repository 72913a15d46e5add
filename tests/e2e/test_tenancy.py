"""Two namespaces, two owners: nothing that one of them writes reaches, changes, stops or shows what is the other's.

In each test `stage` is the one who tries and `neighbour` is who must not notice.
"""

import asyncio
import base64
import gzip
import re

from inflight_demo.cluster import CLUSTER, SYSTEM, quietly
from inflight_demo.store import CREDENTIALS
from inflight_operator.api import names
from inflight_operator.installation.certificates import AUTHORITY, ROUTERS
from inflight_operator.installation.lastgood import NAME as LAST_GOOD
from inflight_probe.infer import Target, output, sender, session, through
from inflight_probe.kube import condition, is_true
from inflight_probe.load import closed_loop
from stage import ONE, deployment, variant

ECHO, OTHER, SLOW = "e2e/echo/1/model.py", "e2e/echo/2/model.py", "e2e/slow/1/model.py"
OPERATOR = "app.kubernetes.io/name=inflight,app.kubernetes.io/component=operator"
TREASURE = "treasure"


def first(_number: int, answer) -> object:
    return output(answer)


def kubectl(*arguments: str) -> str:
    return quietly(CLUSTER, "kubectl", *arguments)


async def warnings(stage) -> str:
    """What Kubernetes complains of in a namespace."""
    return "\n".join(event.get("message", "") for event in await stage.kube.list_all("Event", stage.namespace))


async def started(stage, name: str) -> list[str]:
    """Containers of a ModelDeployment's pods that have ever run."""
    states = [s for pod in await stage.owned("Pod", name) for s in pod["status"].get("containerStatuses", [])]
    return [s["name"] for s in states if not s["state"].get("waiting") or s.get("lastState")]


def mounting(volume) -> dict:
    """Server settings with one volume, which the server's container sees."""
    mount = {"name": "it", "mountPath": "/it", "readOnly": True}
    return {"podTemplate": {"volumes": [{"name": "it", **volume}], "volumeMounts": [mount]}}


THEFTS = {
    "secret": (mounting({"secret": {"secretName": TREASURE}}), f'secret "{TREASURE}" not found'),
    "config": (mounting({"configMap": {"name": TREASURE}}), f'configmap "{TREASURE}" not found'),
    "claim": (
        mounting({"persistentVolumeClaim": {"claimName": TREASURE}}),
        f'persistentvolumeclaim "{TREASURE}" not found',
    ),
    "account": ({"serviceAccountName": TREASURE}, f'serviceaccount "{TREASURE}" not found'),
}
CLAIM = {
    "apiVersion": "v1",
    "kind": "PersistentVolumeClaim",
    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
}


async def test_a_name_means_what_is_in_the_same_namespace(stage, neighbour):
    """By the same name next door there is a Secret, a ConfigMap, a claim and an account: none of them is found."""
    value = {"who": base64.b64encode(neighbour.namespace.encode()).decode()}
    await neighbour.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": TREASURE}, "data": value})
    await neighbour.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TREASURE}, "data": {"a": "b"}})
    kubectl("create", "serviceaccount", TREASURE, "-n", neighbour.namespace)
    where = f"/api/v1/namespaces/{neighbour.namespace}/persistentvolumeclaims"
    await stage.kube.request("POST", where, {**CLAIM, "metadata": {"name": TREASURE}})
    for name, (server, _) in THEFTS.items():
        await stage.apply(deployment(name, variant("main", ECHO), server=server))

    async def all_missing():
        said = await warnings(stage)
        return all(words in said for _, words in THEFTS.values())

    await stage.kube.wait_until(all_missing, "each of the four is missed by name", seconds=60)
    assert [container for name in THEFTS for container in await started(stage, name)] == []
    for name in THEFTS:
        assert not is_true(await stage.get("ModelDeployment", name), "Available")


async def test_names_that_read_alike_are_different_models(stage, neighbour):
    """b-c in e2e-x and c in e2e-x-b: the same letters in the same order."""
    mine, theirs = f"{stage.namespace}/b-c", f"{neighbour.namespace}/c"
    await asyncio.gather(
        stage.serve("b-c", variant("mine", ECHO)), neighbour.serve("c", variant("theirs", OTHER)),
        stage.serve("twin", variant("mine", ECHO)), neighbour.serve("twin", variant("theirs", OTHER)),
    )  # fmt: skip
    asked = {
        mine: ("mine", "b-c"),
        theirs: ("theirs", "c"),
        f"{stage.namespace}/twin": ("mine", "twin"),
        f"{neighbour.namespace}/twin": ("theirs", "twin"),
    }
    async with session() as http:
        for path, (who, model) in asked.items():
            namespace = path.partition("/")[0]
            by_host = {"host": f"{model}.{namespace}.svc.cluster.local"}
            for target in (Target(f"{stage.router}/{path}", model), Target(stage.router, model, by_host)):
                run = await closed_loop(sender(http, target, ONE, first), clients=2, count=50)
                assert run.why() == {}
                assert run.variants() == {who: 50}, target


async def test_pods_and_endpoints_that_pretend_get_no_request_of_the_neighbours(stage, neighbour):
    """The stage has a pod of its own with the neighbour's labels, and an EndpointSlice that names the neighbour's
    Service: routers send there what is the stage's, which is nothing."""
    theirs = await neighbour.serve("digits", variant("theirs", ECHO))
    revision = theirs["status"]["variants"][0]["revision"]
    await stage.serve("liar", variant("mine", OTHER))
    (pod,) = await stage.owned("Pod", "liar")
    name = names.revision_name("digits", "theirs", revision)
    labels = names.labels("digits", "theirs", revision) | {names.SERVICE_NAME: name}
    await stage.kube.request(
        "PATCH",
        f"/api/v1/namespaces/{stage.namespace}/pods/{pod['metadata']['name']}",
        {"metadata": {"labels": names.labels("digits", "theirs", revision)}},
        "application/merge-patch+json",
    )
    await stage.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "pretended", "labels": labels},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": names.HTTP_PORT, "protocol": "TCP"}],
            "endpoints": [{"addresses": [pod["status"]["podIP"]], "conditions": {"ready": True}}],
        }
    )
    async with neighbour.sending("digits") as send:
        run = await closed_loop(send, clients=4, count=400)
    assert run.why() == {}
    assert run.variants() == {"theirs": 400}
    listed = [
        s for s in await neighbour.owned("EndpointSlice", "digits") if s["metadata"]["labels"].get(names.REVISION)
    ]
    addresses = {a for piece in listed for e in piece["endpoints"] for a in e["addresses"]}
    assert addresses == {p["status"]["podIP"] for p in await neighbour.owned("Pod", "digits")}


async def test_a_flood_next_door_costs_no_request(stage, neighbour):
    """Ten times what the flooded model can do, for 15 s: it is refused there and then, and only there."""
    await asyncio.gather(
        stage.serve("flooded", variant("main", SLOW), server={"maxQueue": 1}, autoscaling={"maxReplicas": 1}),
        neighbour.serve("quiet", variant("main", ECHO)),
    )
    async with session() as http, neighbour.load("quiet", rate=50) as run:
        send = sender(http, through(stage.router, stage.namespace, "flooded"), ONE, first)
        flood = await closed_loop(send, clients=50, seconds=15, pause=0.5)
    assert {outcome.reply.status for outcome in flood.failed} <= {429, 503}
    assert len(flood.refused) > 10 * len(flood.ok) > 0, "it was a flood"
    assert len(run.outcomes) > 500
    assert run.why() == {}


async def test_no_secret_is_told_anywhere(stage, neighbour):
    """The store's key, which every pod of a model mounts, and the installation's own keys are in Secrets and nowhere
    else."""
    await asyncio.gather(*(each.serve("keeper", variant("main", ECHO)) for each in (stage, neighbour)))
    await stage.apply(deployment("broken", variant("main", "e2e/nothing/1/model.py")))
    await stage.says("broken", "False", {"FetchFailed"}, seconds=60)
    keys = [(stage.namespace, CREDENTIALS, "AWS_SECRET_ACCESS_KEY"), (SYSTEM, AUTHORITY, "tls.key")]
    secrets = [spelling for key in [*keys, (SYSTEM, ROUTERS, "tls.key")] for spelling in await spellings(stage, *key)]
    kinds = "deployments,replicasets,controllerrevisions,pods,services,configmaps,events,leases,endpointslices,hpa,md"
    told = {"objects": kubectl("get", kinds, "-A", "-o", "yaml")}
    kept = await stage.kube.get("ConfigMap", SYSTEM, LAST_GOOD)
    told |= {
        name: gzip.decompress(base64.b64decode(data)).decode("latin-1") for name, data in kept["binaryData"].items()
    }
    for namespace in (SYSTEM, stage.namespace, neighbour.namespace):
        pods = await stage.kube.list_all("Pod", namespace)
        for name in (pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] != "Pending"):
            told[f"log of {name}"] = kubectl("logs", name, "-n", namespace, "--all-containers", "--tail=-1")
    for part, path in (("operator", ":9090/metrics"), ("router", ":9091/stats/prometheus")):
        for pod in await stage.kube.list_all("Pod", SYSTEM, f"app.kubernetes.io/component={part}"):
            async with session() as http, http.get(f"http://{pod['status']['podIP']}{path}") as answer:
                told[f"metrics of {pod['metadata']['name']}"] = await answer.text()
    assert [where for where, text in told.items() if any(secret in text for secret in secrets)] == []
    assert "keeper" in told["objects"]
    assert all(text for where, text in told.items() if not where.startswith("log"))


async def spellings(stage, namespace: str, name: str, key: str) -> list[str]:
    """A secret as Kubernetes stores it, and as it is used: of a key in PEM one line is enough."""
    secret = await stage.kube.get("Secret", namespace, name)
    stored = secret["data"][key]
    used = base64.b64decode(stored).decode()
    return [stored, used.splitlines()[1] if "PRIVATE KEY" in used else used]


async def test_what_is_told_in_a_namespace_is_about_that_namespace(stage, neighbour):
    """Events and statuses of the one never speak of the other's."""
    await asyncio.gather(
        stage.serve("mine", variant("main", ECHO)), neighbour.serve("theirs-of-next-door", variant("main", OTHER))
    )
    await neighbour.apply(deployment("theirs-of-next-door", variant("main", "e2e/nothing/1/model.py")))
    await neighbour.says("theirs-of-next-door", "False", {"FetchFailed"}, seconds=60)
    for told, about in ((stage, "theirs-of-next-door"), (neighbour, "mine")):
        text = kubectl("get", "events,md", "-n", told.namespace, "-o", "yaml")
        assert told.namespace in text
        assert not re.search(rf"\b{about}\b", text)


WORST = {
    "names-as-long-as-they-may-be-".ljust(63, "x"): {"variants": [variant("v" * 30, ECHO)]},
    "wants-more-than-there-is": {
        "variants": [variant("main", ECHO)],
        "server": {"resources": {"requests": {"memory": "900Ei"}, "limits": {"nvidia.com/gpu": 1}}},
    },
    "fits-nowhere": {
        "variants": [variant("main", ECHO)],
        "server": {"podTemplate": {"nodeSelector": {"there-is": "no-such-node"}}},
    },
    "has-no-such-account": {"variants": [variant("main", ECHO)], "server": {"serviceAccountName": "nobody"}},
    "ten-that-do-not-exist": {
        "variants": [variant(f"v{i}", f"e2e/nothing/{i}/model.py", 10) for i in range(10)],
    },
}


async def test_a_tenants_worst_resources_stop_nobody_else(stage, neighbour):
    """All of it is accepted by the API server, and the operator goes on with the others' as if it were not there."""
    before = await operators(stage)
    for name, spec in WORST.items():
        variants = spec["variants"]
        await stage.apply(deployment(name, *variants, server=spec.get("server")))
    try:
        await neighbour.serve("plain", variant("main", ECHO))
        await neighbour.serve("plain", variant("main", OTHER))
        for name in WORST:
            found = await stage.get("ModelDeployment", name)
            assert condition(found, "Ready"), f"nothing is said about {name}"
        assert await operators(stage) == before
    finally:
        for name in WORST:
            await stage.kube.delete("ModelDeployment", stage.namespace, name)


async def operators(stage) -> dict[str, int]:
    """Restarts of the operator's pods."""
    listed = await stage.kube.list_all("Pod", SYSTEM, OPERATOR)
    return {
        pod["metadata"]["name"]: sum(c["restartCount"] for c in pod["status"]["containerStatuses"]) for pod in listed
    }
