"""The demo's models and the images they are judged on: trained once, kept by what went into them.

Training itself is in `training`, which is imported only when nothing is cached.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

_CATALOGUE = "catalogue.json"
_HELD_BACK = "held-back.json"
_USED = ("scikit-learn", "skl2onnx", "skops", "numpy")


@dataclass(frozen=True)
class Trained:
    """One exported model: its key in the bucket, its file, what it is, its accuracy on unseen images."""

    key: str
    file: Path
    title: str
    accuracy: float


@dataclass(frozen=True)
class Digits:
    """The images held back for testing: 64 pixels from 0 to 16 each, and the digit that each shows."""

    images: list[list[float]]
    labels: list[int]


@dataclass(frozen=True)
class Catalogue:
    """Everything that training makes; `cached` says whether it was there already."""

    models: list[Trained]
    digits: Digits
    cached: bool


def cache_directory() -> Path:
    """Where trained models are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("INFLIGHT_CACHE") or Path(base) / "inflight") / "models"


def fingerprint() -> str:
    """A hash of everything that decides the result: how we train, and the versions of what does it."""
    source = (Path(__file__).parent / "training.py").read_text()
    used = [f"{name}={version(name)}" for name in _USED]
    return hashlib.sha256("\n".join([source, *used]).encode()).hexdigest()[:16]


def catalogue() -> Catalogue:
    """The models, trained now if need be. ValueError when an export is not exactly what was trained."""
    directory = cache_directory() / fingerprint()
    cached = (directory / _CATALOGUE).exists()
    if not cached:
        _fill(directory)
    listed = json.loads((directory / _CATALOGUE).read_text())
    models = [Trained(**(entry | {"file": directory / entry["file"]})) for entry in listed]
    return Catalogue(models, Digits(**json.loads((directory / _HELD_BACK).read_text())), cached)


def _fill(directory: Path) -> None:
    """Train into `directory`; the catalogue appears last and at once, so a broken run leaves none."""
    from inflight_demo import training  # noqa: PLC0415 - costs seconds, needed only when nothing is cached

    directory.mkdir(parents=True, exist_ok=True)
    models, digits = training.train(directory)
    (directory / _HELD_BACK).write_text(json.dumps(asdict(digits)))
    unfinished = directory / "catalogue.part"
    unfinished.write_text(json.dumps([asdict(model) | {"file": model.file.name} for model in models]))
    unfinished.rename(directory / _CATALOGUE)
