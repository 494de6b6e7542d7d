"""Reads the phantom heads that ship with the program."""

from importlib.resources import files

from launch.phantom import Head, read_heads


def shipped_heads() -> tuple[Head, ...]:
    """The heads of `demo_heads.npz` beside this module (synthetic; rendered by `triage train demo-heads`)."""
    folder = files("launch")
    record = (folder / "demo_heads.json").read_text("utf-8")
    return read_heads((folder / "demo_heads.npz").read_bytes(), record)
