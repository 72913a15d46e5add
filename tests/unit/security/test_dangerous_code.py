"""No line of ours runs data as code, skips a check of TLS or believes a Host header, but for those listed here."""

from __future__ import annotations

from pathlib import Path

import pytest

from dangerous import findings

ROOT = Path(__file__).parents[3]
OURS = ("operator", "model-server", "dev", "benchmarks", "router")

ALLOWED = {
    ("benchmarks/bench_codec.py", "pickle"): "measures what pickling would cost; reads only what it wrote itself",
    ("dev/inflight_cluster/health.py", "ssl._create_unverified_context"): (
        "asks components on this machine for their health before their certificates are known; sends no secret"
    ),
    ("operator/inflight_operator/selftest.py", "ssl._create_unverified_context"): (
        "helm test asks the router by a name that its certificate need not have; sends no secret, believes only a 404"
    ),
    ("dev/inflight_cluster/tools.py", "extractall"): "a wheel from the package index, pinned to one version",
}


def ours() -> dict[str, Path]:
    files = (file for folder in OURS for file in (ROOT / folder).rglob("*.py"))
    return {str(file.relative_to(ROOT)): file for file in files}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        pytest.param("import pickle", "pickle", id="pickle"),
        pytest.param("def f():\n  from pickle import loads", "pickle.loads", id="pickle-hidden-in-a-function"),
        pytest.param("import torch.serialization", "torch.serialization", id="torch"),
        pytest.param("from multiprocessing import Pool", "multiprocessing.Pool", id="pool-that-unpickles"),
        pytest.param("import concurrent.futures.process", "concurrent.futures.process", id="executor-module"),
        pytest.param(
            "from concurrent.futures import ProcessPoolExecutor as P\nP()",
            "concurrent.futures.ProcessPoolExecutor",
            id="executor-that-unpickles",
        ),
        pytest.param("eval(text)", "eval", id="eval"),
        pytest.param("run = exec\nrun(text)", "exec", id="exec-by-another-name"),
        pytest.param("from os import system as s\ns('a')", "os.system", id="os-system-by-another-name"),
        pytest.param("import subprocess\nsubprocess.run('a', shell=True)", "shell=True", id="shell"),
        pytest.param("import yaml\nyaml.load(text)", "yaml.load", id="yaml-without-loader"),
        pytest.param("import yaml\nyaml.load(text, Loader=yaml.Loader)", "yaml.load", id="yaml-full-loader"),
        pytest.param("from yaml import load, Loader\nload(text, Loader)", "yaml.load", id="yaml-loader-by-position"),
        pytest.param("archive.extractall(here)", "extractall", id="archive"),
        pytest.param("import shutil\nshutil.unpack_archive(a)", "shutil.unpack_archive", id="archive-by-shutil"),
        pytest.param("import numpy as np\nnp.load(file, allow_pickle=True)", "allow_pickle=True", id="numpy-objects"),
        pytest.param("skops.io.load(file, trusted=True)", "trusted=True", id="skops-that-trusts-everything"),
        pytest.param("httpx.get(url, verify=False)", "verify=False", id="tls-without-verification"),
        pytest.param("aiohttp.TCPConnector(ssl=False)", "ssl=False", id="aiohttp-without-verification"),
        pytest.param("context.check_hostname = False", "check_hostname=False", id="any-host-name"),
        pytest.param("import ssl\ncontext.verify_mode = ssl.CERT_NONE", "ssl.CERT_NONE", id="any-certificate"),
        pytest.param("path = request.url.path", "request.url", id="path-by-the-host-header"),
        pytest.param("self.request.base_url", "request.base_url", id="address-by-the-host-header"),
    ],
)
def test_it_is_seen(source: str, found: str) -> None:
    assert findings(source) == {found}


@pytest.mark.parametrize(
    "source",
    [
        pytest.param("import re\nre.compile('a')", id="regular-expression"),
        pytest.param("import yaml\nyaml.load_all(text, yaml.CSafeLoader)", id="yaml-safe-loader"),
        pytest.param("import pickletools", id="pickletools-never-unpickles"),
        pytest.param("from concurrent.futures import ThreadPoolExecutor", id="threads"),
        pytest.param("await asyncio.create_subprocess_exec('ls')", id="program-without-shell"),
        pytest.param("path = request.scope['path']", id="path-that-was-routed"),
    ],
)
def test_what_is_harmless_is_left_alone(source: str) -> None:
    assert findings(source) == set()


def test_nothing_of_ours_does_it_without_a_reason() -> None:
    found = {(name, what) for name, file in ours().items() for what in findings(file.read_text())}
    assert sorted(found - set(ALLOWED)) == []
    assert sorted(set(ALLOWED) - found) == [], "an exception that nothing needs any more"
