"""Our model server beside others, under the same works in one run: `python -m benchmarks.server --help`."""
