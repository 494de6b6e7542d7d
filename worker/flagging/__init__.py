"""Flagging: study events → state, rank and live changes of every study, written to the view in Redis."""
