"""Connections: sockets and TLS, frames read and written, logins, and peers that speak something else."""
