"""Plan -> Run: the store, the event log and the executors. It knows no stage."""
