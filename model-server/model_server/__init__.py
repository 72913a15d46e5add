"""A model server that refuses early: Open Inference Protocol V2 and V1 over a bounded queue."""

__version__ = "0.1.0"
