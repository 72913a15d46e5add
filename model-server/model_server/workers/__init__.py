"""Worker processes (`isolation: process`): a crash, a hang or too much memory costs only the request on it.

    front (HTTP, queue; no model)  ──control──►  template (loads the model once, forks)  ──fork──►  workers
              └───────────────── a socket and two memory files for each worker ────────────────────────┘

The template forks a new worker whenever the front asks, so all share the template's memory of the model and a lost one
is back in milliseconds. Tensors travel in memory files; nothing that a worker sends is ever unpickled (docs/adr/0006).
How to use it: pool.WorkerPool.
"""
