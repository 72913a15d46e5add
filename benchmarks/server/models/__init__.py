"""The models that every server serves: the same files for ours and for the peers."""
