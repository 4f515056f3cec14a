"""What can go wrong: one error that carries a message for the person at the terminal."""


class LocalKubeError(Exception):
    """The cluster, or a part of it, could not be brought to the wanted state. The message says what to look at."""
