"""Services are reached by address from inside the cluster's network and through kubectl from outside."""

import os

import pytest

from inflight_demo import reach


class Services:
    def __init__(self, found):
        self.found = found

    async def get(self, _kind, _namespace, _name):
        return self.found


HERE = Services({"spec": {"clusterIP": "10.96.0.7"}})


@pytest.fixture
def kubectl(tmp_path, monkeypatch):
    """A dev/cluster that runs the given shell script, and CLUSTER=kind."""

    def make(script):
        file = tmp_path / "cluster"
        file.write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setattr(reach, "CLUSTER", str(file))
        monkeypatch.setenv("CLUSTER", "kind")
        return tmp_path

    return make


async def test_inside_the_network_a_service_is_its_address(monkeypatch):
    monkeypatch.delenv("CLUSTER", raising=False)
    async with reach.service(HERE, "demo", "s3", 7070) as url:
        assert url == "http://10.96.0.7:7070"


async def test_outside_it_is_forwarded_for_as_long_as_the_block_runs(kubectl):
    where = kubectl(
        'echo $$ > "$(dirname "$0")/pid"; echo "$@" > "$(dirname "$0")/arguments"\n'
        'echo "Forwarding from 127.0.0.1:41234 -> 8080"; exec sleep 60'
    )
    async with reach.service(HERE, "demo", "s3", 7070) as url:
        assert url == "http://127.0.0.1:41234"
        pid = int((where / "pid").read_text())
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert (where / "arguments").read_text().split() == ["kubectl", "port-forward", "-n", "demo", "service/s3", ":7070"]


async def test_a_forward_that_ends_is_an_error(kubectl):
    kubectl("exit 3")
    with pytest.raises(ConnectionError, match="ended with 3"):
        async with reach.service(HERE, "demo", "s3", 7070):
            pass


async def test_a_service_that_is_not_there_is_named():
    with pytest.raises(LookupError, match="demo/s3"):
        async with reach.service(Services(None), "demo", "s3", 7070):
            pass
