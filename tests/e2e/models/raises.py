"""Can't be loaded: says why."""

raise RuntimeError("the weights file is corrupt")
