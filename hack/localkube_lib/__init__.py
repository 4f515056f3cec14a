"""A real Kubernetes, control plane and node, on one machine without Docker. A development tool.

Standard library only, so that it runs before any environment exists. Nothing of the product imports it.
"""
