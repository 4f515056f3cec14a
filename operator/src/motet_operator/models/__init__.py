"""What a ModelDeployment becomes, its Deployment, pods and other objects, and what its status says. Pure throughout.

No I/O and no clock here, no client of anything, and nothing of single adapters.
"""
