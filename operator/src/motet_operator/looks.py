"""After how many seconds a key is looked at again when nothing wakes it: pods, store and gateways must be asked."""

from typing import Final

AT_ONCE: Final = 0.0
"""What pods are told follows from what has just been recorded."""
SOON: Final = 0.5
"""While something is under way in a pod or in the store."""
RETIRING: Final = 1.0
"""While gateways still have requests of a version that goes."""
LATER: Final = 5.0
"""While somebody is silent for long, or tries again by itself."""
STEADY: Final = 15.0
"""While all is as it should be."""
