"""The files of a prepared folder: shards written, read, proved whole and mended."""
