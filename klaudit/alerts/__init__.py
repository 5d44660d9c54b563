"""A finding on its way to somebody: what the message says, and the channels it takes."""

from klaudit.alerts.channels import Channel, ConsoleChannel, WebhookChannel
from klaudit.alerts.message import compose_alert

__all__ = ["Channel", "ConsoleChannel", "WebhookChannel", "compose_alert"]
