"""Service managers: launchd, and systemd, its Linux twin. This room knows none of the others.

`job` says what is to run; `agent` writes it for launchd, and `unit` for systemd. `launch_agent` and `user_unit`
register it, by means of `launchctl` and systemctl. `notify` tells systemd how the daemon is.
"""
