"""`make libraries-torture`: Dramatiq and Taskiq under SIGKILLs, on minibroker and on Redis."""
