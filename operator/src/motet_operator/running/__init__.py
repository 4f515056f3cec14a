"""What keeps the passes going and shows how they go: the queue of keys, the one leader, probes, journal, pages.

Nothing here knows what a pass decides.
"""
