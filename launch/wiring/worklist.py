"""Settings and hooks → the worklist's services."""

from contracts.hooks import Hooks
from contracts.ports import Service
from contracts.settings import Settings
from launch.clients.redis_call import make_async_redis, mapped
from launch.http_entrance_in import HttpEntrance
from worklist.redis_in import RedisView
from worklist.serve_out import WorklistService


def build(settings: Settings, hooks: Hooks) -> list[Service]:
    """One service. Raises SettingsError where the settings would show patient data to strangers."""
    view = RedisView(settings.redis, settings.kafka.partitions, make_async_redis(settings.redis), mapped)
    own = settings.worklist
    entrance = HttpEntrance(settings.limits, hooks, "worklist", own.requests, own.requests_per_address)
    return [WorklistService(settings, hooks, view, entrance)]
