"""`python -m sagas.demo` does what `sagas demo` does."""

import sys

from sagas.demo.run import main

sys.exit(main())
