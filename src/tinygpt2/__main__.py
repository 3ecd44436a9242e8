"""The entry point of ``python -m tinygpt2``."""

import sys

from tinygpt2.cli.main import main

sys.exit(main())
