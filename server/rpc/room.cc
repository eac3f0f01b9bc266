// The rpc room has no source yet.
