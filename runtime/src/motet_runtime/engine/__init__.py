"""The engine: what is computed next, on what, and by which thread.

Free of torch: `sequence`, `plan`, `flows`, `pace`, `blocks`, `slots`, `scheduler`, `grammar`, `text`, `thread`. The
rest imports it, and so is imported when the base is loaded, in the engine's thread.
"""
