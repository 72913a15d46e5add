"""Wheels are those that the image's Python needs, whatever Python downloads them."""

from __future__ import annotations

import pytest

from inflight_cluster.wheels import for_image

HASHES = " \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\n"


@pytest.mark.parametrize(
    ("requirement", "wanted"),
    [
        pytest.param("a==1", "a==1", id="said of no Python"),
        pytest.param("a==1 ; python_full_version < '3.11.3'", "a==1", id="older than a patch"),
        pytest.param("a==1 ; python_full_version < '3.11.2'", None, id="not as old"),
        pytest.param("a==1 ; python_full_version >= '3.12'", None, id="newer"),
        pytest.param("a==1 ; python_full_version >= '3.11'", "a==1", id="as new"),
        pytest.param("a==1 ; sys_platform == 'win32'", "a==1 ; sys_platform == 'win32'", id="of something else: pip's"),
    ],
)
def test_what_is_said_of_python_is_judged_for_the_image(requirement: str, wanted: str | None) -> None:
    others = f"# made by uv\nx==1{HASHES}", f"y==2{HASHES}    # via x\n"
    kept = f"{wanted}{HASHES}" if wanted else ""
    assert for_image(f"{others[0]}{requirement}{HASHES}{others[1]}") == f"{others[0]}{kept}{others[1]}"
