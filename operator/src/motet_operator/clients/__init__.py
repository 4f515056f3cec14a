"""Whom the operator asks and tells: the pods that serve, the gateways and the adapter store.

Every call has a timeout, and silence is an error of its own (`SilentPodError`, `SilentStoreError`), never an answer.
Nothing is decided here, and no Kubernetes client is known.
"""
