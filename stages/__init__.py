"""The stages of the DAG: each reads what the stage before it left, calls the pipeline, writes its own folder."""
