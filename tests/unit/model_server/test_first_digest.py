"""A model without a sha256 is held to the digest that its revision's first pod had, as soon as that is recorded."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from model_server import first_digest
from model_server.errors import Reason
from model_server.first_digest import differs, held
from model_server.settings import ModelSettings

SHA, OTHER = "ab" * 32, "cd" * 32


def model(file: Path | None, sha256: str = "") -> ModelSettings:
    return ModelSettings("digits", "s3://models/digits", sha256, digest_file=file)


@pytest.mark.parametrize(
    ("given", "recorded", "wanted"),
    [
        pytest.param("", None, "", id="nothing is known"),
        pytest.param("", SHA + "\n", SHA, id="the first pod's digest is recorded"),
        pytest.param(OTHER, SHA, OTHER, id="the user's own word comes first"),
        pytest.param("", "not a digest", "", id="something else is recorded"),
        pytest.param("", "\xff", "", id="nothing readable is recorded"),
    ],
)
def test_which_digest_a_model_must_have(tmp_path: Path, given: str, recorded: str | None, wanted: str) -> None:
    file = tmp_path / "sha256"
    if recorded is not None:
        file.write_bytes(recorded.encode("latin-1"))
    assert held(model(file, given)).sha256 == wanted


def test_without_a_file_nothing_changes() -> None:
    assert held(model(None)) == model(None)


async def watched(watching: ModelSettings, monkeypatch: pytest.MonkeyPatch, *records: str) -> Reason | None:
    """What comes of serving SHA while the file gets these contents, in turn; None: it goes on."""
    monkeypatch.setattr(first_digest, "LOOK_SECONDS", 0.001)
    task = asyncio.create_task(differs(watching, SHA))
    for record in records:
        if watching.digest_file:
            watching.digest_file.write_text(record)
        await asyncio.wait((task,), timeout=0.05)
    if task.done():
        return task.result().reason
    task.cancel()
    await asyncio.wait((task,))
    return None


@pytest.mark.parametrize(
    ("records", "outcome"),
    [
        pytest.param(("", OTHER), Reason.DIGEST_MISMATCH, id="another one appears"),
        pytest.param(("", SHA), None, id="the same one appears"),
        pytest.param((SHA, OTHER), None, id="what was right once is not looked at again"),
        pytest.param(("", ""), None, id="none appears"),
    ],
)
async def test_who_started_before_it_was_known_learns_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, records: tuple[str, ...], outcome: Reason | None
) -> None:
    assert await watched(model(tmp_path / "sha256"), monkeypatch, *records) == outcome


async def test_who_was_given_a_sha256_or_no_file_watches_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await watched(model(tmp_path / "sha256", SHA), monkeypatch, OTHER) is None
    assert await watched(model(None), monkeypatch, OTHER) is None
