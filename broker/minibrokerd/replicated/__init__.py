"""A log that several machines keep: one stream of NATS JetStream, and who may append to it."""
