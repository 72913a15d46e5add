"""A request's key: equal for requests that one model answers alike, and for no others.

256 bits of BLAKE2b over everything that the answer depends on, so that nobody can find two requests with one key. The
order of the inputs and their types count too: a model may look at both.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Final

import numpy as np

from model_server.models.tensors import Array, Tensors

KEY_BYTES: Final = 32


class Keys:
    """Makes the keys of one model's requests. A request has no parameters that reach the model, so none count."""

    def __init__(self, *identity: str) -> None:
        """`identity`: whatever tells this model from any other: its artifact's digest, its name and so on."""
        self._model = hashlib.blake2b(repr(identity).encode(), digest_size=KEY_BYTES)

    def key(self, inputs: Tensors) -> bytes | None:
        """None for inputs that hold something else than numbers and bytes."""
        hashed = self._model.copy()
        # A literal that ends where it ends; with it the length of what follows is known. So no two requests look alike.
        heads = [(name, array.dtype.str, array.shape) for name, array in inputs.items()]
        hashed.update(repr(heads).encode("utf-8", "surrogatepass"))
        for array in inputs.values():
            if array.dtype.hasobject:
                items = array.ravel().tolist()
                if not all(type(item) is bytes for item in items):
                    return None
                hashed.update(lengths(items))
                hashed.update(b"".join(items))
            else:
                hashed.update(flat(array).data)
        return hashed.digest()


def lengths(items: list[bytes]) -> bytes:
    """Eight bytes for each."""
    return struct.pack(f"<{len(items)}Q", *map(len, items))


def flat(array: Array) -> Array:
    """`array`'s elements in row-major order, in one dimension; copied only if they don't lie so."""
    return np.ascontiguousarray(array).reshape(-1)
