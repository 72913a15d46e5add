"""The works that servers are measured at: each a function from a server that may take part to samples."""
