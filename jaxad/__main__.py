"""``python -m jaxad``."""

import sys

from jaxad.cli.main import main

sys.exit(main())
