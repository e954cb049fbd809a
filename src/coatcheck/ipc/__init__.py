"""IPC Cloud: its calls, the catalog of what its users need, and the drop-in service."""

from coatcheck.ipc.api import IpcCloud
from coatcheck.ipc.executor import APIExecutorService
from coatcheck.ipc.resources import catalog

__all__ = ["APIExecutorService", "IpcCloud", "catalog"]
