"""`python -m motet_runtime`."""

import sys

from motet_runtime.main import main

sys.exit(main())
