"""python -m trainer_image"""

import os
import signal

# Until the training has handlers of its own (signals.py). As a container's first process it would not be ended by a
# signal without one, and be killed when its grace period is over.
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, frame: os._exit(128 + number))

from trainer_image.cli import main  # noqa: E402 (imports take half a second)

# Ctrl-C cleans up behind `predict`, too.
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
