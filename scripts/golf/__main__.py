"""`python -m golf COMMAND` with PYTHONPATH=scripts: what golf.sh calls."""

import sys

from golf.cli import main

sys.exit(main())
