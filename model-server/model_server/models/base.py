"""What every model looks like to the server, whatever its format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from model_server.models.tensors import Tensors, TensorSpec


@dataclass(frozen=True)
class Metadata:
    """What a model says about itself; empty `inputs` or `outputs` mean that it doesn't say."""

    platform: str
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    any_numeric: bool = False
    """The one input may have any name and any numeric datatype (scikit-learn converts); only its shape counts."""


def batchable(metadata: Metadata) -> bool:
    """Whether rows of several requests can be one prediction: every input has any number of rows, or none is told."""
    return all(spec.shape and spec.shape[0] == -1 for spec in metadata.inputs)


class Model(Protocol):
    """A loaded model; `predict` may be called from several threads at once."""

    @property
    def metadata(self) -> Metadata:
        """Its inputs and outputs."""

    @property
    def computes_only(self) -> bool:
        """Whether a prediction never waits for anything, so that its time follows from the size of its input."""

    def predict(self, inputs: Tensors) -> Tensors:
        """Outputs by name, in the model's order. Problem(bad_input) when the input is to blame."""
