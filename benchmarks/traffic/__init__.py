"""The traffic's numbers: `python -m benchmarks.traffic [ROW ...] [--quick]`."""
