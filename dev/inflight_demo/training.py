"""Train, check and export two classifiers of scikit-learn's handwritten digits.

Both learn from 70 % of the 1,797 images and are judged on the 30 % they never saw. What is published is ONNX,
and it is compared with scikit-learn on that 30 % before it may be.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import skops.io
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from inflight_demo.models import Digits, Trained

SEED = 20
HELD_BACK = 0.3
INPUT = "images"


@dataclass(frozen=True)
class Split:
    """float32 images [n, 64] and labels [n], to learn from and to be judged on."""

    train_images: Any
    test_images: Any
    train_labels: Any
    test_labels: Any


def train(directory: Path) -> tuple[list[Trained], Digits]:
    """Write the models into `directory`. ValueError when an export does not answer like what was trained."""
    split = _split()
    stable = _fit(split, LogisticRegression(C=0.1, max_iter=1000, random_state=SEED))
    candidate = _fit(split, MLPClassifier((64,), alpha=0.1, max_iter=400, random_state=SEED))
    models = [
        _export_onnx(directory, "digits/1", stable, split, "logistic regression, ONNX"),
        _export_onnx(directory, "digits/2", candidate, split, "neural network, ONNX"),
        _export_skops(directory, "digits-skops/1", stable, split, "logistic regression, skops"),
    ]
    return models, Digits(split.test_images.tolist(), split.test_labels.tolist())


def _split() -> Split:
    digits = load_digits()
    images = digits.data.astype("float32")
    return Split(
        *train_test_split(images, digits.target, test_size=HELD_BACK, stratify=digits.target, random_state=SEED)
    )


def _fit(split: Split, classifier: Any) -> Any:
    return make_pipeline(StandardScaler(), classifier).fit(split.train_images, split.train_labels)


def _export_onnx(directory: Path, key: str, model: Any, split: Split, title: str) -> Trained:
    exported = to_onnx(model, initial_types=[(INPUT, FloatTensorType([None, 64]))], options={"zipmap": False})
    file = directory / f"{key.replace('/', '-')}.onnx"
    file.write_bytes(exported.SerializeToString())
    labels, probabilities = onnxruntime.InferenceSession(str(file)).run(None, {INPUT: split.test_images})
    differ = int((labels != model.predict(split.test_images)).sum())
    off = float(abs(probabilities - model.predict_proba(split.test_images)).max())
    if differ or off > 1e-4:
        raise ValueError(
            f"{key}: the ONNX export is not the model that was trained: {differ} of {len(labels)} answers "
            f"differ, probabilities are up to {off:.1e} apart"
        )
    return Trained(f"{key}/model.onnx", file, title, float((labels == split.test_labels).mean()))


def _export_skops(directory: Path, key: str, model: Any, split: Split, title: str) -> Trained:
    file = directory / f"{key.replace('/', '-')}.skops"
    skops.io.dump(model, file)
    again = skops.io.load(file, trusted=[])
    if (again.predict(split.test_images) != model.predict(split.test_images)).any():
        raise ValueError(f"{key}: what skops wrote answers differently from the model that was trained")
    return Trained(f"{key}/model.skops", file, title, float(model.score(split.test_images, split.test_labels)))
