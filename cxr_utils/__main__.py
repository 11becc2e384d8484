"""``python -m cxr_utils``."""

import sys

from .cli import guarded, main

sys.exit(guarded(main, sys.argv[1:]))
