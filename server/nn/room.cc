// The nn room has no source yet.
