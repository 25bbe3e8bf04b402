"""The socket's side of HTTP: connections, deadlines and framing, before there is a request."""
