"""``python -m peft_retraining``: the command line where no script is installed, as with mounted folders."""

from __future__ import annotations

import sys

from peft_retraining.cli import main

sys.exit(main())
