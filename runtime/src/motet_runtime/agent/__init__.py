"""The agent beside another engine: our contract with the operator, kept by driving that engine's API. No torch."""
