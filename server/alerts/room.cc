// The alerts room has no source yet.
