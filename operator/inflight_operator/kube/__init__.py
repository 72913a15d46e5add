"""The one Kubernetes client: JSON in and out over the `kubernetes` package's asyncio half."""
