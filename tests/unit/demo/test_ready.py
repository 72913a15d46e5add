"""Waiting for Ready tells every change once and gives up with the last words."""

import pytest

from inflight_demo import ready


def deployment(ready_status: str, message: str, *, generation: int = 2, observed: int = 2):
    return {
        "metadata": {"name": "m", "generation": generation},
        "spec": {"variants": [{"name": "a", "weight": 95}, {"name": "b", "weight": 5}]},
        "status": {
            "observedGeneration": observed,
            "conditions": [
                {"type": "Ready", "status": ready_status, "reason": "Starting", "message": message},
                {"type": "Stalled", "status": "False", "reason": "Complete", "message": "Nothing blocks it."},
            ],
        },
    }


class Answers:
    def __init__(self, *states):
        self.states = list(states)

    async def get(self, _kind, _namespace, _name):
        return self.states.pop(0) if len(self.states) > 1 else self.states[0]


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch):
    async def at_once(_seconds):
        return None

    monkeypatch.setattr(ready.asyncio, "sleep", at_once)


async def test_each_change_is_told_once():
    told = []
    waiting, there = deployment("False", "0 of 1"), deployment("True", "1 of 1")
    found = await ready.wait_ready(
        Answers(None, waiting, waiting, there), "demo", "m", seconds=1, say=lambda line: told.append(line[9:])
    )
    assert found is there
    assert told == ["Ready=False  Starting: 0 of 1", "Ready=True  Starting: 1 of 1"]


async def test_ready_of_an_older_spec_does_not_count():
    stale = deployment("True", "old", observed=1)
    with pytest.raises(TimeoutError, match=r"demo/m is not Ready after 0 s. It says: Ready=True Starting: old"):
        await ready.wait_ready(Answers(stale), "demo", "m", seconds=0, say=lambda _: None)


def test_weights_are_those_asked_for():
    assert ready.weights(deployment("True", "")) == {"a": 95, "b": 5}
    assert ready.weights({"spec": {"variants": [{"name": "only"}]}}) == {"only": 100}
