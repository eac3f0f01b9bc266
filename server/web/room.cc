// The web room has no source yet.
