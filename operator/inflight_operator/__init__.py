"""The inflight operator: ModelDeployments in, running and routed model servers out."""
