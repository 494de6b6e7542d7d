"""The worker: scoring and flagging, which share a process or have one each."""
