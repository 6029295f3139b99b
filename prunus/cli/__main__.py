"""Entry point of `python -m prunus.cli`, which torchrun starts."""

import sys

from prunus.cli import main, process

process.leave_out_current_folder()
sys.exit(main())
