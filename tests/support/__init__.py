"""What several tests share: a real broker as a subprocess, and the project's source as data."""
