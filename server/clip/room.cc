// The clip room has no source yet.
