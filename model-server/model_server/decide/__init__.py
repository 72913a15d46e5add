"""Decisions of the server, each a pure function or a value: no clock, no I/O, `now` is an argument."""
