"""The reference host: plugins, JSON-RPC, agents and one channel. It knows nothing of cron."""
