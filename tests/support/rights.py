"""Rights as roles grant them and as an API server saw them used, in one spelling, so that they can be compared.

A right reads "ClusterRole inflight-operator: patch apps/deployments/scale"; one that is granted for a named object only
ends with that name. The API server's audit log says of each request by which role it was allowed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "rules": [{"level": "Metadata", "omitStages": ["RequestReceived"]}],
}
_ROLES = ("Role", "ClusterRole")
_ALLOWED = re.compile(r'allowed by (Cluster)?RoleBinding "(?P<binding>[^"]+)" of (?P<kind>\w+) "(?P<role>[^"]+)"')


def spelled(rules: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Each single right in a role's rules."""
    for rule in rules:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    for name in rule.get("resourceNames") or [""]:
                        yield f"{verb} {group + '/' if group else ''}{resource} {name}".rstrip()


def granted(objects: Iterable[Mapping[str, Any]]) -> set[str]:
    """Every right in the roles among `objects`."""
    found = set()
    for item in objects:
        if item["kind"] in _ROLES:
            where = item["metadata"].get("namespace")
            role = f"{item['kind']} {where + '/' if where else ''}{item['metadata']['name']}"
            found |= {f"{role}: {right}" for right in spelled(item["rules"])}
    return found


def used(audit_log: Path, user: str) -> set[str]:
    """The rights that `user` has used, each with and without the object's name."""
    return {right for event in _events(audit_log, user) for right in _of(event)}


def refused(audit_log: Path, user: str) -> set[str]:
    """What `user` asked for and had no right to."""
    return {
        f"{_asked(event, event['verb'])} in {event['objectRef'].get('namespace', 'the whole cluster')}"
        for event in _events(audit_log, user)
        if event["annotations"].get("authorization.k8s.io/decision") == "forbid"
    }


def _events(audit_log: Path, user: str) -> Iterator[dict[str, Any]]:
    """What concerns a resource: everybody may read the lists of APIs."""
    for line in audit_log.read_text().splitlines():
        event = json.loads(line)
        who = event.get("impersonatedUser") or event["user"]
        if who["username"] == user and "objectRef" in event:
            yield {"annotations": {}, **event}


def _of(event: Mapping[str, Any]) -> Iterator[str]:
    allowed = _ALLOWED.search(event["annotations"].get("authorization.k8s.io/reason", ""))
    if not allowed:
        return
    # A RoleBinding is told as name/namespace, and its Role is in the same namespace.
    where = allowed["binding"].partition("/")[2] if allowed["kind"] == "Role" else ""
    role = f"{allowed['kind']} {where + '/' if where else ''}{allowed['role']}"
    # Applying what does not exist takes the right to create it as well, and is one request in the log.
    born = event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == 201
    for verb in (event["verb"], *(["create"] if born else [])):
        right = f"{role}: {_asked(event, verb)}"
        yield right
        yield f"{right} {event['objectRef'].get('name', '')}".rstrip()


def _asked(event: Mapping[str, Any], verb: str) -> str:
    ref = event["objectRef"]
    resource = "/".join(filter(None, (ref.get("apiGroup"), ref["resource"], ref.get("subresource"))))
    return f"{verb} {resource}"
