"""What a finished folder says of itself: the record and a page for people."""
