"""The first digits model as a container image, for the example that takes its model from one."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

from inflight_cluster import builders
from inflight_cluster.console import Console
from inflight_cluster.locks import exclusive
from inflight_cluster.settings import load
from inflight_demo.cluster import CLUSTER, quietly
from inflight_demo.models import Catalogue

REFERENCE = "inflight/digits-model:1"
_KEY = "digits/1/model.onnx"
_DOCKERFILE = """ARG BASE_IMAGE=docker.io/library/python:3.11-slim-bookworm
FROM ${BASE_IMAGE}
COPY model.onnx /models/model.onnx
USER 65532:65532
"""


def ensure(catalogue: Catalogue) -> None:
    """Build it when the model has changed, and load it into the node."""
    cache = load().cache
    model = next(m.file for m in catalogue.models if m.key == _KEY)
    builder = builders.choose(cache)
    name = hashlib.sha256(f"{builder.key} {_DOCKERFILE}".encode() + model.read_bytes()).hexdigest()[:12]
    archive = cache / "images" / f"digits-model-{name}.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            shutil.copyfile(model, Path(scratch) / "model.onnx")
            (Path(scratch) / "Dockerfile").write_text(_DOCKERFILE)
            with exclusive(cache / "images.lock"):
                builder.build(Path(scratch), f"docker.io/{REFERENCE}", archive, Console())
    quietly(CLUSTER, "load", str(archive))
