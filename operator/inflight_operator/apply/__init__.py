"""Writing to the cluster: server-side apply of children, the scale subresource, the status, Events."""
