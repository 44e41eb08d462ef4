"""The service managers: launchd agents, and systemd user units, their Linux twin. Knows no other room."""
