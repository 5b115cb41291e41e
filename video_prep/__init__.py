"""Clips to frames and sound in shards: reads real media, costs one clip where one clip is bad."""
