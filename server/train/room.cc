// The train room has no source yet.
