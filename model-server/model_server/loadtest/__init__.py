"""`model-server loadtest`: closed-loop clients against any HTTP URL. It knows nothing of the server's own code."""
