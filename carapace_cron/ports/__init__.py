"""What stores, runners, channels and hosts must do; protocols only."""
