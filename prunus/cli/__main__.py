"""`python -m prunus.cli`, as torchrun starts it."""

import sys

from prunus.cli import main, process

process.leave_out_current_folder()
sys.exit(main())
