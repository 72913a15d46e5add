"""The demo's models are really trained, really exported and trained only once."""

import json

import numpy as np
import onnxruntime
import pytest
import skops.io

from inflight_demo import models, training


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def catalogue(cache, monkeypatch):
    monkeypatch.setenv("INFLIGHT_CACHE", str(cache))
    return models.catalogue()


def test_the_first_run_trains_and_the_second_does_not(catalogue, monkeypatch):
    monkeypatch.setattr(training, "train", lambda _: pytest.fail("trained again"))
    again = models.catalogue()
    assert again.cached
    assert again.models == catalogue.models


def test_an_interrupted_training_leaves_nothing_that_counts(tmp_path, monkeypatch):
    monkeypatch.setenv("INFLIGHT_CACHE", str(tmp_path))

    def interrupted(directory):
        (directory / "digits-1.onnx").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(training, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            models.catalogue()
    assert not models.catalogue().cached


def test_what_is_cached_depends_on_how_it_is_trained(monkeypatch):
    before = models.fingerprint()
    monkeypatch.setattr(models, "version", lambda _: "0")
    assert models.fingerprint() != before


@pytest.mark.parametrize("key", ["digits/1/model.onnx", "digits/2/model.onnx"])
def test_an_export_answers_as_well_as_it_is_said_to(catalogue, key):
    model = next(m for m in catalogue.models if m.key == key)
    images = np.array(catalogue.digits.images, dtype=np.float32)
    loaded = onnxruntime.InferenceSession(str(model.file))
    assert [(i.name, i.type) for i in loaded.get_inputs()] == [("images", "tensor(float)")]
    labels, probabilities = loaded.run(None, {"images": images})
    assert float((labels == np.array(catalogue.digits.labels)).mean()) == model.accuracy
    assert probabilities.shape == (len(images), 10)
    assert model.accuracy > 0.95


def test_the_skops_file_needs_no_trusted_types(catalogue):
    model = next(m for m in catalogue.models if m.key.endswith(".skops"))
    assert skops.io.get_untrusted_types(file=model.file) == []


def test_nothing_is_judged_on_what_it_learned_from():
    split = training._split()
    learned = {image.tobytes() for image in split.train_images}
    assert (len(split.train_images), len(split.test_images)) == (1257, 540)
    assert not any(image.tobytes() in learned for image in split.test_images)


def test_an_export_that_answers_differently_is_refused(tmp_path, monkeypatch):
    split = training._split()
    model = training._fit(split, training.LogisticRegression(C=0.1, max_iter=1000))
    worse = training._fit(split, training.LogisticRegression(C=1e-6, max_iter=1000))
    exporter = training.to_onnx
    monkeypatch.setattr(training, "to_onnx", lambda _, **how: exporter(worse, **how))
    with pytest.raises(ValueError, match="not the model that was trained"):
        training._export_onnx(tmp_path, "digits/1", model, split, "")


def test_the_catalogue_holds_no_path_of_this_machine(catalogue, cache):
    written = next(cache.rglob("catalogue.json")).read_text()
    assert all("/" not in entry["file"] for entry in json.loads(written))
