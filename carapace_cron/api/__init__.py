"""JSON-RPC: translate, decide nothing."""
