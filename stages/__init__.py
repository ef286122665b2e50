"""The stages of the DAG: each reads what the stage before it left, calls the pipeline, writes its own folder."""

import gc
from multiprocessing import current_process

# Imports make a million objects and drop few: to look for garbage among them is a tenth of a stage's start, so it is
# done rarely until `start`, which the processes that a stage starts never reach.
COLLECTING = gc.get_threshold()
if current_process().name == "MainProcess":
    gc.set_threshold(100_000, *COLLECTING[1:])
