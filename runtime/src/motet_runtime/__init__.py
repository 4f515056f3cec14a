"""The runtime: one base model, many adapters, mixed in one batch; its HTTP API; the checks before an adapter is loaded.

Nothing here may import Kubernetes code. torch and transformers are imported in the engine's thread only, so that the
HTTP listeners (and with them the operator's first document) do not wait for them.
"""
