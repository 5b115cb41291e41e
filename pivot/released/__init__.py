"""Models that papers' authors released: read as data, checked key by key, made into Pivot's."""
