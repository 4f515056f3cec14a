"""Adapters: where they lie, what they are, whether they fit, and which are resident. Free of torch."""
