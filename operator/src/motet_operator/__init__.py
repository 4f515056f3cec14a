"""The control plane: makes the cluster equal to the ModelDeployments and LoraAdapters in it, and says how far it is.

Nothing here may load the engine's libraries (torch, transformers, peft), and nothing but `cluster`, `connection` and
`wiring` knows a Kubernetes client. `decide` and all that it calls are pure: no I/O, no clock.
"""
