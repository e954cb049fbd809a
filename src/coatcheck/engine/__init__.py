"""The cache itself: it knows no HTTP, no database and no catalog of anybody's."""
