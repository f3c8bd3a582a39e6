"""Every use case once; permission checks live here."""
