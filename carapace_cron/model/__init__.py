"""The nouns: frozen records, camelCase on the wire."""
