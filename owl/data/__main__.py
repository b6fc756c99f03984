"""``python -m owl.data``: downloads data sets."""

import sys

from owl.data.download import main

if __name__ == "__main__":
    sys.exit(main())
