"""Reading the cluster: a cache fed by watches, and the world of one ModelDeployment made from it."""
