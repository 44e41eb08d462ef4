"""What daemon, worker and clients say to each other.

`messages` and `control_messages` hold the types, `framing` turns bytes into them and back without any I/O,
`channel` moves the bytes, `control` is the client of the control socket. `docs/protocol.md` is the prose.
"""
