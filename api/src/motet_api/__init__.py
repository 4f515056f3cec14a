"""The vocabulary that every part of Motet shares: object types, wire contract, names, error codes, identity.

Nothing here does I/O or reads a clock, and nothing here may be imported but pydantic and the standard library
(import-linter checks it), so that the operator stays free of torch and the runtime free of Kubernetes code.
"""
