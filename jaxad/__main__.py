"""``python -m jaxad``."""

import sys

from jaxad.cli import main

sys.exit(main())
