"""The front door: names to versions to pods, the sticky split, the queue, streaming, and the count of demand.

Only `watch` may import the Kubernetes client and only `main` puts the parts together; no engine library may be imported
here (import-linter checks it).
"""
