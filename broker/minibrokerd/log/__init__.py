"""The append-only log: its format, the files, recovery. It knows batches, not queues."""
