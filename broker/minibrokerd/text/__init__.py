"""How durations, sizes, bodies and counters are written: by the command line, the page and the checks alike."""
