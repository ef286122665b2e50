"""What `check-data` finds out about a data set before anything is prepared or trained."""
