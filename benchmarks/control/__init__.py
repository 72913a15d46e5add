"""The control plane's numbers: `python -m benchmarks.control [ROW ...] [--quick]`."""
