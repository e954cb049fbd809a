"""A session per user in front of a slow API: fetched once, never shown to another."""
