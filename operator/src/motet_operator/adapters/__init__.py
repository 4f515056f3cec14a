"""What becomes of LoraAdapters: who may attach, on which pods they are placed, how a split moves, what is said of them.

Pure throughout: no I/O, no clock, no client of anything.
"""
