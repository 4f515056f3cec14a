"""The adapter store as a pod sees it: artifacts by digest, blobs by sha256. Free of torch."""
