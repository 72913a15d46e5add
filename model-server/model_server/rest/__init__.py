"""HTTP: translation between requests and the core. Nothing here decides what is computed."""
