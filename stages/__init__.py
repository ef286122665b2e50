"""The stages of the DAG: each reads what the stage before it left, calls the pipeline, writes its own folder."""

import gc

# Imports make a million objects and drop few: to look for garbage among them is a tenth of a stage's start, so it is
# done rarely until `start`.
COLLECTING = gc.get_threshold()
gc.set_threshold(100_000, *COLLECTING[1:])
