// The stats room has no source yet.
