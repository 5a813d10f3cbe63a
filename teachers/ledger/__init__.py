"""The truth of a run: one line a reply, on the disk before it counts."""
