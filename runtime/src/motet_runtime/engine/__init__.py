"""The engine: sequences, scheduler, model, sampling, and the thread that runs them.

`sequence.py` and `scheduler.py` import no torch; `packed_attention.py`, `lora.py`, `model.py` and `sampling.py` do, and
are imported in the engine's thread only.
"""
