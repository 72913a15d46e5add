"""What goes into the images: pinned by hash, the very versions that the tests run, none with a known hole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

REQUIREMENTS = Path(__file__).parents[3] / "requirements"
IMAGES = ("operator", "model-server", "router")

FLOORS = {
    "starlette": ("1.0.1", "CVE-2026-48710: a Host header changes request.url.path; CVE-2025-62727: Range"),
    "h11": ("0.16.0", "CVE-2025-43859: a lenient chunk parser, request smuggling behind a proxy"),
    "aiohttp": ("3.10.11", "CVE-2024-52304: request smuggling by chunk extensions"),
    "protobuf": ("6.31.1", "CVE-2025-4565: a nested message exhausts the stack"),
    "requests": ("2.32.4", "CVE-2024-47081: .netrc credentials for the wrong host"),
    "urllib3": ("2.6.0", "CVE-2025-66418, CVE-2025-66471: a small answer that decompresses without end"),
    "skops": ("0.13.0", "CVE-2025-54412, CVE-2025-54413, CVE-2025-54886: types that are loaded without being trusted"),
}
ABSENT = {
    "python-multipart": "forms are not parsed here (CVE-2024-24762, CVE-2026-24486)",
    "torch": "its files are pickles (CVE-2025-32434)",
    "onnx": "external data by any path (CVE-2024-27318, CVE-2026-27489); files are looked at by our own reader",
    "dill": "it unpickles",
    "jinja2": "nothing is rendered from a template",
}


def pins(name: str) -> dict[str, set[str]]:
    """Versions of each package in a lock file; several where they depend on the Python version."""
    found: dict[str, set[str]] = {}
    for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#", "-")):
            requirement = Requirement(line.removesuffix("\\"))
            (specifier,) = requirement.specifier
            assert specifier.operator == "==", line
            found.setdefault(requirement.name, set()).add(specifier.version)
    return found


@pytest.mark.parametrize("image", IMAGES)
def test_every_pin_has_hashes(image: str) -> None:
    text = (REQUIREMENTS / f"{image}.txt").read_text()
    blocks = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)
    assert [block.split()[0] for block in blocks if "==" in block and "--hash=sha256:" not in block] == []
    assert pins(image)


@pytest.mark.parametrize("image", IMAGES)
def test_the_tests_run_what_the_image_holds(image: str) -> None:
    tested = pins("dev")
    assert {name: versions for name, versions in pins(image).items() if tested.get(name) != versions} == {}


@pytest.mark.parametrize("image", IMAGES)
def test_no_pin_is_older_than_a_fix_that_matters_here(image: str) -> None:
    held = pins(image)
    old = [
        f"{name} {version} < {floor}: {why}"
        for name, (floor, why) in FLOORS.items()
        for version in held.get(name, ())
        if Version(version) < Version(floor)
    ]
    assert old == []


def test_a_floor_is_of_something_that_is_there() -> None:
    assert set(FLOORS) <= {name for image in IMAGES for name in pins(image)}


@pytest.mark.parametrize("image", IMAGES)
def test_what_should_not_be_in_an_image_is_not(image: str) -> None:
    assert {name: why for name, why in ABSENT.items() if name in pins(image)} == {}
