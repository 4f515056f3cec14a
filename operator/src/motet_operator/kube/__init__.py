"""The API server: what the watches tell, lists, and a client for everything that is read and written.

Nothing is decided here. Only `cluster`, `connection` and `wiring` know a Kubernetes client.
"""
