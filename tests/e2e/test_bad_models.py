"""A model that can't be served: what served before goes on, the status says why, mending the CR mends it."""

import pytest

from inflight_probe.kube import is_true
from stage import deployment, model, variant

GOOD = "e2e/echo/1/model.py"

BAD = {
    "not there": (model("e2e/nothing/1/model.py"), {"FetchFailed"}, "e2e/nothing/1/model.py"),
    "wrong digest": (model("e2e/echo/2/model.py", sha256="0" * 64), {"DigestMismatch"}, "0000000"),
    "a pickle": (
        {k: v for k, v in model("e2e/pickle/1/model.pkl").items() if k not in ("format", "entrypoint")},
        {"UnsafeFormat"},
        "pickle",
    ),
    "raises on load": (model("e2e/raises/1/model.py"), {"LoadFailed"}, "the weights file is corrupt"),
    "dies on load": (model("e2e/dies/1/model.py"), {"LoadFailed"}, "ended (exit code 3)"),
}


@pytest.mark.parametrize("case", BAD)
async def test_the_old_revision_serves_until_the_cr_is_mended(stage, case):
    """Seen failing (Available=False, 503) when the weight moves to a revision before it is ready."""
    bad, reasons, said = BAD[case]
    good = await stage.serve("patient", variant("main", GOOD))
    old = good["status"]["variants"][0]["revision"]
    async with stage.load("patient", rate=20) as run:
        await stage.apply(deployment("patient", {"name": "main", "model": bad}))
        told = await stage.says("patient", "False", reasons, seconds=60)
        still = await stage.get("ModelDeployment", "patient")
        await stage.serve("patient", variant("main", GOOD))
    assert said in told["message"]
    assert is_true(still, "Available")
    assert still["status"]["variants"][0]["revision"] == old
    assert run.why() == {}
    assert {o.reply.revision for o in run.ok} == {old}, "the mended CR is the revision that never stopped serving"


async def test_a_first_model_that_is_bad_answers_503_until_it_is_mended(stage):
    bad, reasons, _ = BAD["raises on load"]
    await stage.apply(deployment("first", {"name": "main", "model": bad}))
    await stage.says("first", "False", reasons, seconds=60)
    async with stage.sending("first") as send:
        assert (await send(0)).status == 503
    await stage.serve("first", variant("main", GOOD))
    async with stage.sending("first") as send:
        assert (await send(0)).status == 200
