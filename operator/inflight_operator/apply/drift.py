"""Whether a live object still is what we would apply. Pure; equal means that nothing is sent.

Two checks, for each alone is blind: the recorded hash sees that we set less than before, the comparison sees what
somebody changed by hand. The server's own defaults are not drift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from inflight_operator.api import names
from inflight_operator.api.world import Object

_DECIMAL: Final = {"m": Decimal("0.001"), "": Decimal(1), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)}
_BINARY: Final = {"Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40)}
_SUFFIX: Final = {**_DECIMAL, "T": Decimal(10**12), **_BINARY}


def same(manifest: Object, live: Object | None) -> bool:
    """True when applying `manifest` would change nothing that we set."""
    if live is None:
        return False
    applied = (live["metadata"].get("annotations") or {}).get(names.APPLIED_HASH)
    # The items of a list come without their kind and version.
    wanted = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
    return bool(applied == manifest["metadata"]["annotations"][names.APPLIED_HASH]) and covers(live, wanted)


def covers(live: Any, wanted: Any) -> bool:
    """Whether everything in `wanted` is in `live`; mappings may hold more, lists may not."""
    if isinstance(wanted, Mapping):
        live = live if isinstance(live, Mapping) else {}
        return all(_empty(item) or (key in live and covers(live[key], item)) for key, item in wanted.items())
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        if not isinstance(live, Sequence) or isinstance(live, str) or len(live) != len(wanted):
            return False
        return all(covers(mine, theirs) for mine, theirs in zip(live, wanted, strict=True))
    return bool(live == wanted) or _same_quantity(live, wanted)


def _empty(value: Any) -> bool:
    """The API server drops what is empty."""
    return isinstance(value, (Mapping, list)) and not value


def _same_quantity(live: Any, wanted: Any) -> bool:
    """`1000m` comes back as `1`."""
    one, other = _quantity(live), _quantity(wanted)
    return one is not None and one == other


def _quantity(value: Any) -> Decimal | None:
    text = str(value)
    digits = text.rstrip("mkMGTKi")
    try:
        return Decimal(digits) * _SUFFIX[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        return None
