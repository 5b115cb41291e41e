"""`python -m pivot` is `pivot`."""

import sys

from pivot.cli import main

if __name__ == "__main__":
    sys.exit(main())
