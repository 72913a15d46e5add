"""Manifests, built from decisions. Pure functions: data in, plain dictionaries out; no client, no clock."""
