"""The adapter store: fetches adapters and bases once, verifies them and serves their bytes by sha256."""
