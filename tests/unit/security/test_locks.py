"""What goes into the images: pinned by hash, the very versions that the tests run, none with a known hole."""

from __future__ import annotations

import pytest
from packaging.version import Version

from inflight_scan import locks
from inflight_scan.locks import IMAGES, PLATFORM, Pin, pins
from inflight_scan.sbom import differences

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


@pytest.mark.parametrize("image", IMAGES)
def test_every_pin_has_hashes(image: str) -> None:
    held = locks.of(image)
    assert held
    assert [pin.name for pin in held if not pin.hashes] == []


@pytest.mark.parametrize("image", IMAGES)
def test_the_tests_run_what_the_image_holds(image: str) -> None:
    tested = {(pin.name, pin.version, pin.hashes) for pin in locks.of("dev")}
    assert [pin.name for pin in locks.of(image) if (pin.name, pin.version, pin.hashes) not in tested] == []


@pytest.mark.parametrize("image", IMAGES)
def test_no_pin_is_older_than_a_fix_that_matters_here(image: str) -> None:
    floors = [(pin, *FLOORS[pin.name]) for pin in locks.of(image) if pin.name in FLOORS]
    assert [
        f"{pin.name} {pin.version}: {why}" for pin, floor, why in floors if Version(pin.version) < Version(floor)
    ] == []


def test_a_floor_is_of_something_that_is_there() -> None:
    assert set(FLOORS) <= {pin.name for image in IMAGES for pin in locks.of(image)}


@pytest.mark.parametrize("image", IMAGES)
def test_what_should_not_be_in_an_image_is_not(image: str) -> None:
    assert {pin.name: ABSENT[pin.name] for pin in locks.of(image) if pin.name in ABSENT} == {}


ONE, OTHER = "1" * 64, "2" * 64
LOCK = f"""\
# a remark
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:{ONE} \\
    --hash=sha256:{OTHER}
    # via -r model-server.in
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:{ONE}
"""


def test_a_lock_file_is_read_for_the_images_python() -> None:
    assert [pin.version for pin in pins(LOCK)] == ["2.4.6", "2.5.5"]
    (pin,) = pins(LOCK, PLATFORM)
    assert (pin.name, pin.version, pin.hashes) == ("numpy", "2.4.6", {ONE, OTHER})
    assert "remark" not in pin.text
    assert "via" not in pin.text


def test_what_is_not_pinned_is_refused() -> None:
    with pytest.raises(ValueError, match="not pinned: numpy>=2"):
        list(pins("numpy>=2\n"))


@pytest.mark.parametrize(
    ("name", "version", "sha256", "differing"),
    [
        pytest.param("numpy", "2.4.6", ONE, [], id="the-same"),
        pytest.param("numpy", "2.4.7", ONE, ["numpy 2.4.6", "numpy 2.4.7"], id="another-version"),
        pytest.param("numpy", "2.4.6", OTHER, ["numpy 2.4.6"], id="another-file"),
        pytest.param("scipy", "2.4.6", ONE, ["numpy 2.4.6", "scipy 2.4.6"], id="another-package"),
    ],
)
def test_a_bill_of_materials_is_held_to_the_lock_file(
    name: str, version: str, sha256: str, differing: list[str]
) -> None:
    component = {"name": name, "version": version, "externalReferences": [{"hashes": [{"content": sha256}]}]}
    assert differences({"components": [component]}, [Pin("numpy", "2.4.6", frozenset({ONE}), "")]) == differing
