// The metrics room has no source yet.
