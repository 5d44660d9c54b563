"""Who writes to a store."""

import os
import socket

from klaudit.records.ledger import Actor


def identify_actor(name: str | None = None) -> Actor:
    """This process, on this host, of this user; never fails, for a trainer must not end over it.

    Args:
        name: of the person behind it.
    """
    return Actor(user=_find_user(), host=socket.gethostname(), pid=os.getpid(), name=name)


def _find_user() -> str:
    try:
        # Not getpass: it believes the environment first, which anybody sets.
        import pwd

        return pwd.getpwuid(os.getuid()).pw_name
    except (ImportError, KeyError, AttributeError):
        # A container whose user has a number and no name; or Windows, which has no numbers.
        return f"uid {os.getuid()}" if hasattr(os, "getuid") else os.environ.get("USERNAME", "unknown")
