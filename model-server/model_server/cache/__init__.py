"""Answers kept for equal requests, and equal requests at one time computed once. Opt-in, and a layer over the queue."""
