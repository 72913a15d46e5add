"""What lies in the demo's bucket: the trained models and the Python examples, by key."""

from __future__ import annotations

from inflight_demo.cluster import ROOT
from inflight_demo.models import Catalogue
from inflight_demo.store import Upload

_PYTHON = ROOT / "model-server" / "examples"


def uploads(catalogue: Catalogue) -> list[Upload]:
    """Everything to publish. Keys are what manifests/examples name after s3://models/."""
    trained = [Upload(model.key, model.file) for model in catalogue.models]
    return [*trained, *python_examples()]


def python_examples() -> list[Upload]:
    """The example models in Python: one that waits, one that computes."""
    return [
        Upload("waiting/1/model.py", _PYTHON / "sleep.py"),
        Upload("calculate/1/model.py", _PYTHON / "calculate.py"),
    ]
