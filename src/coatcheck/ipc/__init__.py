"""IPC Cloud: its calls and their types."""
