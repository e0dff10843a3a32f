"""Every byte of files and shards: an object store by URL. Not for metadata, which is in `batchord.state`."""

from batchord.storage.blobs import CHUNK_BYTES, Blobs, BlockingBlobs

__all__ = ["CHUNK_BYTES", "Blobs", "BlockingBlobs"]
