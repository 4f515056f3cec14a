"""The demo, and the installation of the product into a local cluster that the end-to-end tests share with it."""
