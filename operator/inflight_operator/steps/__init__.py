"""The steps of a reconcile that touch the world, in the order in which `reconcile` takes them."""
