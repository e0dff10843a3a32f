"""Every Redis command of the project: what is kept of batches, files and shards. Not for bytes, not for messages."""
