"""`python -m motet_gateway` is `motet-gateway`."""

from motet_gateway.main import main

main()
