"""The aggregated API `custom.metrics.k8s.io`, a process of its own: queue depths of ModelDeployments, for their HPAs.

It knows the gateways and the API server, and nothing of the reconciler.
"""
