"""``python -m excise`` is the command ``excise``."""

import sys

from excise.cli import main

sys.exit(main())
