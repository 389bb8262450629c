"""`python -m lrfinder`: the same as the command `lrfinder`."""

import sys

from lrfinder.cli import main

__all__: list[str] = []

if __name__ == "__main__":  # workers of a DataLoader import this file too
    sys.exit(main())
