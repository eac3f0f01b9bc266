// The data room has no source yet.
