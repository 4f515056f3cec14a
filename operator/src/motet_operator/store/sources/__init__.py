"""Where files come from: hf, s3, oci, http(s), pvc and file, each as a `Source` (contract.py).

Nothing here knows Kubernetes, digests of artifacts or what an adapter must look like: it lists and it reads. Every byte
from a network comes through `http_client`, the one place where addresses, redirects, sizes and time are bounded.
"""
