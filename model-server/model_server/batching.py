"""Tensors of several requests as one batch, and its outputs apart again. Rows are a tensor's first dimension."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from model_server.models.tensors import Array, Tensors


class NotRowwiseError(Exception):
    """The model's outputs don't have one row for each row of its inputs: it can't be batched."""


def rows_of(inputs: Tensors) -> int:
    """Rows that all inputs have; 0 where they have none in common."""
    sizes = {array.shape[0] if array.ndim else 0 for array in inputs.values()}
    return sizes.pop() if len(sizes) == 1 else 0


def signature_of(inputs: Tensors) -> Hashable:
    """Equal for requests that can be one batch: same names, types, and shapes but for the rows."""
    return tuple((name, array.dtype, array.shape[1:]) for name, array in inputs.items())


def split(inputs: Tensors, rows: int) -> list[Tensors]:
    """`inputs` cut into pieces of at most `rows` rows."""
    total = rows_of(inputs)
    return [{name: array[at : at + rows] for name, array in inputs.items()} for at in range(0, total, rows)]


def joined(parts: Sequence[Tensors]) -> Tensors:
    """One batch of all the parts' rows, in order; they have the same names."""
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def apart(outputs: Tensors, rows: Sequence[int]) -> list[Tensors]:
    """The outputs of each part of a batch, by its number of rows. NotRowwiseError."""
    total = sum(rows)
    if not all(array.ndim and array.shape[0] == total for array in outputs.values()):
        raise NotRowwiseError
    parts: list[dict[str, Array]] = []
    start = 0
    for count in rows:
        parts.append({name: array[start : start + count] for name, array in outputs.items()})
        start += count
    return list(parts)
