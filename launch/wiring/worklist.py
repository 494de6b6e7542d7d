"""Settings and hooks → the worklist's services."""

from contracts.hooks import Hooks
from contracts.ports import Service
from contracts.settings import Settings
from worklist.serve_out import WorklistService


def build(settings: Settings, hooks: Hooks) -> list[Service]:
    """One service. Raises SettingsError where the settings would show patient data to strangers."""
    return [WorklistService(settings, hooks)]
