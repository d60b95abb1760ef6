"""Settings for every test: one thread a process (two test processes share two cores), no network for model names, shapes checked.

The shapes in the annotations of `algos` and of the update are checked at every call by beartype: the hook must stand before their first import.
"""

import os
import signal
import threading

from jaxtyping import install_import_hook

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

install_import_hook(["rlaif.algos", "rlaif.train.update"], "beartype.beartype")

# A suite started in the background inherits an ignored SIGINT, and so would every child that a test interrupts.
if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
