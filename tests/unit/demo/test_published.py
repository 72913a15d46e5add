"""Every model that an example names is in the bucket."""

import json
import re

from inflight_demo import published, ready, store
from inflight_demo.models import Catalogue, Digits, Trained


def test_every_example_finds_its_model_in_the_bucket(tmp_path):
    trained = [
        Trained(key, tmp_path, "", 1.0)
        for key in ("digits/1/model.onnx", "digits/2/model.onnx", "digits-skops/1/model.skops")
    ]
    keys = [upload.key for upload in published.uploads(Catalogue(trained, Digits([], []), cached=True))]
    wanted = {
        uri
        for example in ready.EXAMPLES.glob("*.yaml")
        for uri in re.findall(r"s3://models/([\w./-]+)", example.read_text())
    }
    assert wanted, "no example names a model in the bucket"
    assert {uri for uri in wanted if not any(key.startswith(uri) for key in keys)} == set()


def test_the_python_examples_are_there():
    assert all(upload.file.is_file() for upload in published.python_examples())


def test_keys_are_drawn_not_written_down():
    first, second = store._credentials("demo"), store._credentials("demo")
    assert json.dumps(first) != json.dumps(second)
