"""``python -m jaxad``."""

import signal
import sys

# Until the command line listens to signals: an interrupted import ends without a traceback.
signal.signal(signal.SIGINT, signal.SIG_DFL)

from jaxad.cli.main import main  # noqa: E402

sys.exit(main())
