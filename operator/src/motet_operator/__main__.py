"""`python -m motet_operator` is `motet-operator`."""

import sys

from motet_operator.main import main

sys.exit(main())
