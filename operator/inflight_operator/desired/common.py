"""What every child shares: the owner, the labels, the mark of what was applied."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from inflight_operator.api import names
from inflight_operator.api.world import Object


def owner_reference(resource: Object) -> dict[str, Any]:
    """The garbage collector deletes children by it; no finalizer is needed (KEP-1987)."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.KIND,
        "name": resource["metadata"]["name"],
        "uid": resource["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": False,
    }


def child(resource: Object, api_version: str, kind: str, name: str, labels: dict[str, str], **body: Any) -> Object:
    """A child of `resource`, marked with a hash of itself so that a field we stop setting is noticed."""
    manifest = {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": name,
            "namespace": resource["metadata"]["namespace"],
            "labels": labels,
            "ownerReferences": [owner_reference(resource)],
        },
        **body,
    }
    digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()[:16]
    manifest["metadata"]["annotations"] = {names.APPLIED_HASH: digest}
    return manifest
