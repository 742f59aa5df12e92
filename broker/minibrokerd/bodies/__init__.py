"""Where the bytes of messages are, in memory or at a place in the log; they are cut and summed here."""
