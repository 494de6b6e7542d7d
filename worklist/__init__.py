"""The worklist: reads the view that flagging keeps and serves it, live. It writes nothing."""
