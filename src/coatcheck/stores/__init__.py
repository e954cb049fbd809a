"""What lies beneath memory: sealed at rest, in a file or shared between processes."""
