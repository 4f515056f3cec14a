"""One pass over one ModelDeployment: observe, decide, act, report (`reconciler`).

`observe` is the only step that reads, `act` and `report` the only ones that write. What is decided about adapters and
about the objects of a model is in `adapters` and `models`; `decide` puts it together, and is as pure as they are.
"""
