// The jobs room has no source yet.
